//! The way to the API server, shared by all who go it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::OnceCell;

use super::access::{Access, AccessError};
use super::failover;
use super::heard::{Heard, WatchState};
use super::requests::{RequestCounts, Requests};
use super::servers::Servers;
use super::trouble::Often;

/// How long to wait before the client's configuration is read again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the log is told of what goes on being wrong.
const REMIND: Duration = Duration::from_secs(60);

/// An API server with its several addresses, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    access: Access,
    servers: OnceLock<Arc<Servers>>,
    client: OnceCell<ClientBox>,
    access_trouble: Mutex<Option<String>>,
    /// What is wrong with requests about a resource.
    troubles: Mutex<BTreeMap<String, String>>,
    heard: Arc<Heard>,
    requests: Arc<Requests>,
}

/// [`Client`] has no `Debug`.
struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Cluster {
    /// The way by this access. Nothing is sent yet.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(Arc::new(Inner {
            access,
            servers: OnceLock::new(),
            client: OnceCell::new(),
            access_trouble: Mutex::default(),
            troubles: Mutex::default(),
            heard: Arc::default(),
            requests: Arc::default(),
        }))
    }

    /// The client, as soon as there is what it needs: an address and credentials. What is missing is looked for again
    /// and again, and the log says so now and then.
    pub async fn client(&self) -> Client {
        let find = async || {
            let mut reminder = Often::new(REMIND);
            loop {
                match self.try_client().await {
                    Ok(client) => {
                        self.set_access_trouble(None);
                        return ClientBox(client);
                    }
                    Err(error) => {
                        if reminder.is_due() {
                            tracing::error!("{error}");
                        }
                        self.set_access_trouble(Some(error.to_string()));
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        self.0.client.get_or_init(find).await.0.clone()
    }

    async fn try_client(&self) -> Result<Client, AccessError> {
        let config = self.0.access.config().await?;
        let address = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        // Endpoints speak TLS and have no path in front of the API's: behind a gateway they are not followed.
        let is_plain =
            matches!(config.cluster_url.path(), "" | "/") && config.cluster_url.scheme_str() == Some("https");
        let run_dir = self.0.access.run_dir.as_deref().filter(|_| is_plain);
        let servers = self.0.servers.get_or_init(|| Arc::new(Servers::new(&address, run_dir)));
        failover::client(&config, servers, &self.0.heard, &self.0.requests)
    }

    fn set_access_trouble(&self, trouble: Option<String>) {
        *self.0.access_trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// The endpoints of the service `default/kubernetes`.
    pub(super) fn set_endpoints(&self, endpoints: &BTreeSet<SocketAddr>) {
        if let Some(servers) = self.0.servers.get() {
            servers.set_endpoints(endpoints);
        }
    }

    /// What is wrong with requests about a resource, or nothing any more. Whether this is news.
    pub fn set_trouble(&self, resource: &str, trouble: Option<String>) -> bool {
        let mut troubles = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(text) => troubles.insert(resource.to_owned(), text.clone()) != Some(text),
            None => troubles.remove(resource).is_some(),
        }
    }

    /// The server that is asked at present.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        self.0.servers.get().map(|servers| servers.current())
    }

    /// How the watches are, those that have been open once.
    #[must_use]
    pub fn watches(&self) -> Vec<WatchState> {
        self.0.heard.states(Instant::now())
    }

    /// A kind is not served: its watch is neither alive nor silent.
    pub(super) fn forget(&self, kind: crate::Kind) {
        self.0.heard.forget(kind);
    }

    /// What was asked of servers, and what became of it.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.0.requests.counts()
    }

    /// What is wrong at present and what to do, one text a matter. Nothing when all is well: every watch goes on.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let access = self.0.access_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let away = self.0.servers.get().and_then(|servers| servers.trouble());
        let resources = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        access.into_iter().chain(away).chain(resources.values().cloned()).collect()
    }
}
