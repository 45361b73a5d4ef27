//! Several API servers, and none.

use fairlead_objects::Kind;
use fairlead_objects::kubernetes::Interest;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use crate::control::{ADMIN, Control, FIRST, NODE, SECOND};
use crate::feed::{Feed, create_of_cluster, wait};

#[test]
fn s59_another_server_is_asked_when_one_is_away_and_silence_is_seen() {
    let mut control = Control::new("servers");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        let cluster = control.node(ADMIN, FIRST);
        let mut feed = Feed::start(cluster.clone(), Interest::Node(NODE.to_owned()));
        feed.until("lists", |feed| feed.synced.len() == Kind::ALL.len()).await;
        let kept = control.dir().join("apiservers");
        let first = format!("{FIRST}:6443\n");
        wait("the first one is kept", || std::fs::read_to_string(&kept).is_ok_and(|text| text == first)).await;

        // A second one, whose certificate does not have its address.
        control.serve(SECOND, &[], &[]).await;
        let both = format!("{FIRST}:6443\n{SECOND}:6443\n");
        wait("both are known", || std::fs::read_to_string(&kept).unwrap() == both).await;

        control.kill(FIRST);
        let elsewhere = control.cluster(ADMIN, SECOND).client().await;
        create_of_cluster::<Namespace>(&elsewhere, json!({"metadata": {"name": "one"}})).await;
        feed.until("the second one tells", |feed| feed.has(Kind::Namespace, "one")).await;
        assert_eq!(cluster.server().as_deref(), Some("192.0.2.2:6443"));
        wait("nothing is wrong any more", || cluster.troubles().is_empty()).await;

        // An agent that starts now finds the configured one dead and knows the other from the file.
        let next = control.node(ADMIN, FIRST);
        let mut after = Feed::start(next, Interest::Node(NODE.to_owned()));
        after.until("lists", |feed| feed.synced.len() == Kind::ALL.len()).await;

        control.kill(SECOND);
        wait("that nobody answers is said", || !cluster.troubles().is_empty()).await;
        let alive = |alive| {
            let watches = cluster.watches();
            // Of ClusterNetworkPolicies there is no definition.
            watches.len() == Kind::ALL.len() - 1 && watches.iter().all(|watch| watch.alive == alive)
        };
        wait("no watch is alive", || alive(false)).await;
        let before = cluster.watches();
        let grows = || cluster.watches().iter().zip(&before).all(|(now, before)| now.age > before.age);
        wait("and their ages grow", grows).await;
        assert!(feed.has(Kind::Namespace, "one"), "what was known stays");
        control.serve(FIRST, &[FIRST], &[]).await;
        create_of_cluster::<Namespace>(&admin, json!({"metadata": {"name": "two"}})).await;
        feed.until("the first one is back", |feed| feed.has(Kind::Namespace, "two")).await;
        wait("every watch is alive again", || alive(true)).await;
        wait("nothing is wrong any more", || cluster.troubles().is_empty()).await;
    });
}
