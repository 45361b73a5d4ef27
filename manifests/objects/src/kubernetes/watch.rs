//! The watches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use kube::core::Status;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::relist::{Relist, Step};
use super::scope::Scope;
use super::served::{self, NOT_FOUND};
use super::trouble::{Often, forbidden};
use super::wire::Wire;
use super::{Cluster, Interest};
use crate::convert::Slim;
use crate::{EndpointSlice, Event, Kind, Object, ObjectKey, causes};

/// Codes of a server that has no streaming lists: the request is refused as invalid.
const REFUSED: [u16; 2] = [400, 422];
/// The code of a server that no longer has what a watch would have to begin with.
const GONE: u16 = 410;
/// The code of a server that has no such thing for these credentials.
pub(super) const FORBIDDEN: u16 = 403;
/// How often the log is told of what goes on being wrong.
pub(super) const REMIND: Duration = Duration::from_secs(60);
/// Objects in one page of a list, where there are no streaming lists: a page is in memory as a whole.
const PAGE: u32 = 100;

/// Follows an API server until nobody listens any more. Errors are tried again, with a growing pause that has some
/// chance in it, so that a server that comes back isn't met by all nodes at once.
pub(crate) async fn watch(cluster: &Cluster, interest: Interest, events: mpsc::Sender<Event>) {
    tokio::select! {
        _ = cluster.client() => {}
        () = events.closed() => return,
    }
    let scope = Scope::new();
    let told = Told { interest: &interest, scope: &scope, events: &events };
    tokio::join!(
        follow::<core::Node>(cluster, told),
        follow::<core::Namespace>(cluster, told),
        follow::<core::Service>(cluster, told),
        follow::<discovery::EndpointSlice>(cluster, told),
        follow::<networking::NetworkPolicy>(cluster, told),
        served::follow(cluster, told),
        follow::<core::Pod>(cluster, told),
    );
}

/// What is asked for, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) interest: &'a Interest,
    scope: &'a Scope,
    pub(super) events: &'a mpsc::Sender<Event>,
}

impl Told<'_> {
    /// Tells an event when its time has come. `false`: nobody listens any more.
    pub(super) async fn tell(self, event: Event) -> bool {
        tokio::select! {
            () = self.scope.admits(&event) => self.events.send(event).await.is_ok(),
            () = self.events.closed() => false,
        }
    }
}

/// Follows one kind, if it is of interest.
async fn follow<K>(cluster: &Cluster, told: Told<'_>)
where
    K: Slim + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    if told.interest.wants(K::KIND) {
        pursue::<K>(cluster, told, &mut Relist::new(K::KIND)).await;
    }
}

/// Follows one kind until the server has no such kind, `true`, or nobody listens any more.
pub(super) async fn pursue<K>(cluster: &Cluster, told: Told<'_>, relist: &mut Relist) -> bool
where
    K: Slim + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let Told { interest, scope, events } = told;
    let client = cluster.client().await;
    let mut own = OwnEndpoints::default();
    let mut reminder = Often::new(REMIND);
    let mut streaming = true;
    loop {
        let mut config = watcher::Config::default().page_size(PAGE);
        config.label_selector = interest.labels(K::KIND).map(str::to_owned);
        let fields = tokio::select! {
            fields = scope.fields(K::KIND, interest.node()) => fields,
            () = events.closed() => return false,
        };
        config.field_selector.clone_from(&fields);
        if streaming {
            config = config.streaming_lists();
        }
        let api: Api<Wire<K>> = Api::all(client.clone());
        let mut steps = watcher(api, config).default_backoff().boxed();
        loop {
            let step = tokio::select! {
                step = steps.next() => step,
                () = scope.outgrows(fields.as_deref()) => break,
                () = events.closed() => return false,
            };
            match step {
                None => break,
                Some(Ok(step)) => {
                    if cluster.set_trouble(&plural::<K>(), None) {
                        tracing::info!("the watch of {} has resumed", plural::<K>());
                    }
                    let step = read(step);
                    let list_ends = step == Step::ListEnds;
                    for event in relist.step(step) {
                        if let Some(endpoints) = own.see(&event) {
                            cluster.set_endpoints(&endpoints);
                        }
                        if !told.tell(event).await {
                            return false;
                        }
                    }
                    if list_ends {
                        scope.list_ended(K::KIND, fields.as_deref());
                    }
                }
                Some(Err(error)) => match refusal(&error) {
                    Some(status) if streaming && REFUSED.contains(&status.code) => {
                        tracing::info!(
                            "the API server does not support streaming lists: listing {} in pages",
                            plural::<K>()
                        );
                        streaming = false;
                        break;
                    }
                    // Only a list helps. Within a watch the watcher sees to that itself.
                    Some(status) if status.code == GONE => break,
                    Some(status) if status.code == NOT_FOUND && K::KIND.may_be_absent() => return true,
                    Some(status) => {
                        let text = match status.code {
                            FORBIDDEN => forbidden(&K::group(&()), &plural::<K>(), &["list", "watch"], &status.message),
                            _ => format!("the API server refuses the watch of {}: {}", plural::<K>(), status.message),
                        };
                        if cluster.set_trouble(&plural::<K>(), Some(text.clone())) || reminder.is_due() {
                            tracing::error!("{text}");
                            reminder.is_due();
                        }
                    }
                    // That no server answers is said once for all kinds.
                    None => tracing::debug!("the watch of {} broke: {}", plural::<K>(), causes(&error)),
                },
            }
        }
        // Only the watcher's own retries have a pause.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) fn plural<K: Resource<DynamicType = ()>>() -> String {
    K::plural(&()).into_owned()
}

/// What a server has against a request.
fn refusal(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn read<K: Slim>(event: watcher::Event<Wire<K>>) -> Step {
    match event {
        watcher::Event::Init => Step::ListBegins,
        watcher::Event::InitDone => Step::ListEnds,
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => Step::Seen(Box::new(object.reading)),
        watcher::Event::Delete(object) => Step::Gone(object.key()),
    }
}

/// The endpoints of the API server itself: those of `default/kubernetes`, by slice.
#[derive(Debug, Default)]
struct OwnEndpoints(BTreeMap<ObjectKey, BTreeSet<SocketAddr>>);

impl OwnEndpoints {
    /// All of them, if an event has to do with them.
    fn see(&mut self, event: &Event) -> Option<BTreeSet<SocketAddr>> {
        match event {
            Event::Applied(Object::EndpointSlice(slice)) if is_own(slice) => {
                let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
                let ports = slice.ports.iter().filter(|port| port.name.as_deref() == Some("https"));
                let ports: Vec<u16> = ports.filter_map(|port| port.port).collect();
                let ips = ready.flat_map(|endpoint| endpoint.addresses.first());
                let addresses = ips.flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect();
                self.0.insert(slice.key.clone(), addresses);
            }
            Event::Deleted(Kind::EndpointSlice, key) => drop(self.0.remove(key)?),
            _ => return None,
        }
        Some(self.0.values().flatten().copied().collect())
    }
}

fn is_own(slice: &EndpointSlice) -> bool {
    slice.key.namespace == "default" && slice.service_name.as_deref() == Some("kubernetes")
}
