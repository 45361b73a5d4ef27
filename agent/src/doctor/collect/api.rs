//! Whether the API server can be reached.

use std::fs;
use std::time::Duration;

use fairlead_objects::causes;

use super::super::facts::ApiServer;
use super::Places;
use crate::install::{API_SERVER, kubeconfig};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks it for its version, which everybody may. Its certificate is not checked: only the agent knows by which authority.
pub(super) async fn api_server(places: &Places, unseen: &mut Vec<(String, String)>) -> Option<ApiServer> {
    let (url, origin) = match address(places) {
        Ok(found) => found,
        Err(why) => {
            unseen.push(("the API server".to_owned(), why));
            return None;
        }
    };
    let trouble = ask(&url).await.err();
    Some(ApiServer { url, origin, trouble })
}

fn address(places: &Places) -> Result<(String, String), String> {
    if let Some(url) = &places.api_server {
        return Ok((kubeconfig::url(url)?, "as set".to_owned()));
    }
    let path = places.run_dir.join(API_SERVER);
    if let Ok(text) = fs::read_to_string(&path) {
        return Ok((kubeconfig::url(&text)?, format!("from {}", path.display())));
    }
    let path = &places.kubelet_kubeconfig;
    Ok((kubeconfig::api_server(path).map_err(|error| error.to_string())?, format!("from {}", path.display())))
}

async fn ask(url: &str) -> Result<(), String> {
    let mut config = kube::Config::new(url.parse().map_err(|error| format!("{error}"))?);
    config.accept_invalid_certs = true;
    // Not the system's either: a container has none, and that would be an error.
    config.root_cert = Some(Vec::new());
    config.connect_timeout = Some(PATIENCE);
    let client = kube::Client::try_from(config).map_err(|error| causes(&error))?;
    match tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        // It is there and wants to know who asks.
        Ok(Ok(_) | Err(kube::Error::Api(_))) => Ok(()),
        Ok(Err(error)) => Err(causes(&error)),
    }
}
