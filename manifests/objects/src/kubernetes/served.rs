//! A kind that the API may not serve: ClusterNetworkPolicies, whose CustomResourceDefinition comes and goes.
//!
//! Which version is served is asked of the server's discovery, which every account may read, or, where it is refused, by a list
//! of each version. Where there is none, there are no policies, and it is asked again with a growing pause. v1beta1 is watched
//! if it is served, else v1alpha2, never both.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Client;

use super::Cluster;
use super::relist::{Relist, Step};
use super::trouble::Often;
use super::watch::{FORBIDDEN, REMIND, Told, plural, pursue};
use crate::convert::ClusterNetworkPolicy;
use crate::{Kind, causes};

/// The API group.
const GROUP: &str = "policy.networking.k8s.io";
/// The first pause between two questions, and the longest: many nodes ask.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest while there is no answer, on which everything else may wait: that of the watches.
const LONGEST_UNANSWERED: Duration = Duration::from_secs(30);
/// So long what was there stays, when the server says that it serves no such kind, and nothing else meanwhile. Whoever deletes
/// the definition deletes its objects first, each of which is told. A server that has just begun answers 503, not 404, until it
/// knows its definitions (WithMuxAndDiscoveryComplete of k8s.io/apiserver), so that the first answer can be believed.
const BELIEF: Duration = Duration::from_secs(60);
/// The code of a server that has no such thing.
pub(super) const NOT_FOUND: u16 = 404;

/// Which version is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// v1beta1, and perhaps others.
    Beta,
    /// v1alpha2.
    Alpha,
    /// Other versions alone: there may be policies, and nobody here can read them.
    Others,
    /// None of these.
    Nothing,
}

impl Served {
    /// The best of the versions that a group has, which serve the kind.
    fn best(versions: &[&str]) -> Self {
        versions.iter().fold(Self::Nothing, |best, version| match (*version, best) {
            ("v1beta1", _) => Self::Beta,
            ("v1alpha2", Self::Nothing | Self::Others) => Self::Alpha,
            (_, Self::Nothing) => Self::Others,
            _ => best,
        })
    }
}

/// Follows ClusterNetworkPolicies, if they are of interest.
pub(super) async fn follow(cluster: &Cluster, told: Told<'_>) {
    if !told.interest.wants(Kind::ClusterNetworkPolicy) {
        return;
    }
    let client = cluster.client().await;
    let mut relist = Relist::new(Kind::ClusterNetworkPolicy);
    let mut reminder = Often::new(REMIND);
    let (mut pause, mut absent) = (FIRST_PAUSE, None);
    loop {
        let served = tokio::select! {
            served = find(&client, relist.has_told()) => served,
            () = told.events.closed() => return,
        };
        let resource = plural::<ClusterNetworkPolicy<true>>();
        let mut trouble = |text: String| {
            if cluster.set_trouble(&resource, Some(text.clone())) || reminder.is_due() {
                tracing::error!("{text}");
                reminder.is_due();
            }
        };
        let longest = if served.is_ok() { LONGEST_PAUSE } else { LONGEST_UNANSWERED };
        if served.is_err() {
            absent = None;
        }
        match served {
            Ok(Served::Nothing) => {
                cluster.forget(Kind::ClusterNetworkPolicy);
                cluster.set_trouble(&resource, None);
                let since = *absent.get_or_insert_with(Instant::now);
                if !relist.has_told() || since.elapsed() >= BELIEF {
                    for event in [Step::ListBegins, Step::ListEnds].into_iter().flat_map(|step| relist.step(step)) {
                        if !told.tell(event).await {
                            return;
                        }
                    }
                }
            }
            Ok(Served::Others) => {
                cluster.forget(Kind::ClusterNetworkPolicy);
                absent = None;
                trouble(format!(
                    "the API server serves {resource} of {GROUP} in neither version v1beta1 nor v1alpha2: they can't \
                     be read, and the last known ones stay in force; serve one of these versions, or install a newer \
                     Fairlead"
                ));
            }
            Ok(version) => {
                if absent.take().is_some() {
                    tracing::info!("the API server serves {resource} now");
                }
                let goes_on = match version {
                    Served::Beta => pursue::<ClusterNetworkPolicy<true>>(cluster, told, &mut relist).await,
                    _ => pursue::<ClusterNetworkPolicy<false>>(cluster, told, &mut relist).await,
                };
                if !goes_on {
                    return;
                }
                pause = FIRST_PAUSE;
            }
            Err(kube::Error::Api(status)) => {
                trouble(match status.code {
                    FORBIDDEN => format!(
                        "the API server forbids its discovery, and {resource} can't be listed without: {}; bind the \
                         ClusterRole system:discovery to the group system:authenticated, as API servers do by default",
                        status.message
                    ),
                    _ => format!("the API server does not tell whether it serves {resource}: {}", status.message),
                });
            }
            // That no server answers is said once for all kinds.
            Err(error) => tracing::debug!("can't tell whether {resource} are served: {}", causes(&error)),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = told.events.closed() => return,
        }
        pause = (pause * 2).min(longest);
    }
}

/// Finds out which version is served. A refused question holds up nothing else as long as another one is answered. `has_told`:
/// there were policies, which a version that nobody asks for may have, so only discovery can say that there are none.
async fn find(client: &Client, has_told: bool) -> kube::Result<Served> {
    let refused = match discover(client).await {
        Err(error @ kube::Error::Api(_)) => error,
        answer => return answer,
    };
    match list(client).await {
        Ok(Served::Nothing) if has_told => Err(refused),
        Ok(served) => {
            tracing::debug!("the API server refuses discovery, so it was asked for a list: {}", causes(&refused));
            Ok(served)
        }
        Err(_) => Err(refused),
    }
}

/// Asks discovery which version is served.
async fn discover(client: &Client) -> kube::Result<Served> {
    let request = http::Request::get(format!("/apis/{GROUP}")).body(Vec::new());
    let request = request.map_err(|error| kube::Error::Service(Box::new(error)))?;
    let group = match client.request::<APIGroup>(request).await {
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(Served::Nothing),
        group => group?,
    };
    // A version of the group may serve other kinds alone.
    let mut versions = Vec::new();
    let mut all: Vec<_> = group.versions.iter().map(|version| version.version.as_str()).collect();
    all.sort_by_key(|version| *version != "v1beta1");
    for version in all {
        if Served::best(&versions) == Served::Beta {
            break;
        }
        match client.list_api_group_resources(&format!("{GROUP}/{version}")).await {
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
            list => {
                let resource = plural::<ClusterNetworkPolicy<true>>();
                if list?.resources.iter().any(|each| each.name == resource) {
                    versions.push(version);
                }
            }
        }
    }
    Ok(Served::best(&versions))
}

/// Asks for objects of each version that can be read.
async fn list(client: &Client) -> kube::Result<Served> {
    let resource = plural::<ClusterNetworkPolicy<true>>();
    for (version, served) in [("v1beta1", Served::Beta), ("v1alpha2", Served::Alpha)] {
        let request = http::Request::get(format!("/apis/{GROUP}/{version}/{resource}?limit=1")).body(Vec::new());
        let request = request.map_err(|error| kube::Error::Service(Box::new(error)))?;
        match client.request::<serde_json::Value>(request).await {
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
            answer => return answer.map(|_| served),
        }
    }
    Ok(Served::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_known_is_watched() {
        for (versions, best) in [
            (&["v1alpha1", "v1alpha2", "v1beta1"][..], Served::Beta),
            (&["v1beta1", "v1alpha2"], Served::Beta),
            (&["v1alpha2", "v1alpha1"], Served::Alpha),
            (&["v1alpha1", "v1"], Served::Others),
            (&["v1", "v1alpha2"], Served::Alpha),
            (&[], Served::Nothing),
        ] {
            assert_eq!(Served::best(versions), best, "{versions:?}");
        }
    }
}
