//! The watches.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::relist::{Reading, Relist, Step};
use crate::convert::Slim;
use crate::{Event, Kind, ObjectKey};

/// How long to wait before the client's configuration is read again.
const RETRY: Duration = Duration::from_secs(1);
/// `reason` codes of a server that has no streaming lists: the request is refused as invalid or forbidden.
const REFUSED: [u16; 2] = [400, 422];

/// What can go wrong before the first request.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("can't read the kubeconfig: {0}; correct --kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("no API server is configured: {0}; run in a pod with a service account, or give --kubeconfig")]
    Infer(#[from] kube::config::InferConfigError),
    #[error("can't make a client of the API server: {0}; correct the kubeconfig")]
    Client(#[from] kube::Error),
}

/// Follows an API server until nobody listens any more. Errors are logged and tried again, with a growing pause that
/// has some chance in it, so that a server that comes back isn't met by all nodes at once.
pub async fn watch(kubeconfig: Option<&Path>, events: mpsc::Sender<Event>) {
    let client = loop {
        match client(kubeconfig).await {
            Ok(client) => break client,
            Err(error) => tracing::error!("{error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = events.closed() => return,
        }
    };
    tokio::join!(
        follow::<core::Node>(&client, &events),
        follow::<core::Namespace>(&client, &events),
        follow::<core::Service>(&client, &events),
        follow::<discovery::EndpointSlice>(&client, &events),
        follow::<networking::NetworkPolicy>(&client, &events),
        follow::<core::Pod>(&client, &events),
    );
}

async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    Ok(Client::try_from(config)?)
}

/// Follows one kind.
async fn follow<K>(client: &Client, events: &mpsc::Sender<Event>)
where
    K: Slim + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut relist = Relist::new(K::KIND);
    let mut streaming = true;
    loop {
        let config = if streaming { watcher::Config::default().streaming_lists() } else { watcher::Config::default() };
        let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
        let mut steps = watcher(api, config).default_backoff().boxed();
        loop {
            let step = tokio::select! {
                step = steps.next() => step,
                () = events.closed() => return,
            };
            match step {
                None => break,
                Some(Ok(step)) => {
                    for event in relist.step(read(step)) {
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Err(error)) if streaming && is_refusal(&error) => {
                    tracing::info!("the API server has no streaming lists, so {} is listed", K::KIND.as_str());
                    streaming = false;
                    break;
                }
                Some(Err(error)) => {
                    tracing::warn!("the watch of {} failed and is tried again: {error}", K::KIND.as_str());
                }
            }
        }
    }
}

/// Whether a server refuses streaming lists.
fn is_refusal(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => REFUSED.contains(&status.code),
        watcher::Error::WatchError(status) => REFUSED.contains(&status.code),
        _ => false,
    }
}

fn read<K: Slim + Resource<DynamicType = ()>>(event: watcher::Event<DeserializeGuard<K>>) -> Step {
    match event {
        watcher::Event::Init => Step::ListBegins,
        watcher::Event::InitDone => Step::ListEnds,
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => Step::Seen(Box::new(reading(&object))),
        watcher::Event::Delete(object) => Step::Gone(key(&object)),
    }
}

fn reading<K: Slim + Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> Reading {
    let key = Some(key(object)).filter(|key| !key.name.is_empty());
    match object.0.as_ref().map_err(|invalid| invalid.error.clone()).and_then(|o| o.slim().map_err(|e| e.to_string())) {
        Ok((object, notes)) => {
            Reading { key, object: Some(object), reasons: notes.iter().map(ToString::to_string).collect() }
        }
        Err(reason) => Reading { key, object: None, reasons: vec![reason] },
    }
}

fn key<K: Slim + Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> ObjectKey {
    match K::KIND {
        Kind::Node | Kind::Namespace => ObjectKey::cluster(object.name_any()),
        _ => ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any()),
    }
}
