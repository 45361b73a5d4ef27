//! Events on objects.

use fairlead_agent::events::Recorder;
use fairlead_agent::model::Model;
use fairlead_agent::state::{NOT_SERVED, warn_not_served};
use fairlead_objects::kubernetes::Interest;
use fairlead_objects::{Event as Told, Kind, ObjectKey};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::control::{ADMIN, AGENT, Control, FIRST, NODE};
use crate::definitions::{definition_of, make_with};
use crate::feed::{Feed, create, create_of_cluster, wait};

async fn events(client: &Client) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), "default");
    let all = api.list(&ListParams::default()).await.unwrap().items;
    all.into_iter().filter(|event| event.reporting_controller.as_deref() == Some("fairlead.io/agent")).collect()
}

#[test]
fn what_is_wrong_with_an_object_is_said_on_it_once() {
    let mut control = Control::new("events");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        let service: Service =
            create(&admin, "default", json!({"metadata": {"name": "cart"}, "spec": {"ports": [{"port": 80}]}})).await;
        let key = ObjectKey::new("default", "cart");
        let recorders = ["node-1", "node-2"].map(|node| Recorder::start(control.cluster(ADMIN, FIRST), node));
        for recorder in &recorders {
            for _ in 0..3 {
                recorder.warn_for_all(Kind::Service, &key, "InvalidObject", "spec.ports: no");
            }
        }
        recorders[0].warn(Kind::Node, &ObjectKey::cluster("node-1"), "", "NoPodRange", "none");
        // Each recorder writes in order: with its last one, whatever it was to write is there.
        for (recorder, node) in recorders.iter().zip(["node-1", "node-2"]) {
            recorder.warn(Kind::Node, &ObjectKey::cluster(node), "", "Last", "nothing comes after this");
        }
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            loop {
                let (last, found): (Vec<_>, Vec<_>) =
                    events(&admin).await.into_iter().partition(|event| event.reason.as_deref() == Some("Last"));
                if last.len() == 2 {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
        let found = found.await.expect("the events are written");
        assert_eq!(found.len(), 2, "{found:#?}");
        let event = found.iter().find(|event| event.reason.as_deref() == Some("InvalidObject")).unwrap();
        let regarding = event.regarding.as_ref().unwrap();
        assert_eq!(regarding.uid, service.metadata.uid, "kubectl describe finds events by uid");
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.note.as_deref(), Some("spec.ports: no"));

        // Without the right to write events the agent says so, and nobody waits.
        let cluster = control.cluster(AGENT, FIRST);
        let recorder = Recorder::start(cluster.clone(), "node-1");
        let uid = service.metadata.uid.clone().unwrap();
        recorder.warn(Kind::Service, &key, &uid, "NotInForce", "full");
        wait("that events are forbidden is said", || !cluster.troubles().is_empty()).await;
        let troubles = cluster.troubles();
        assert!(troubles[0].contains(r#"resources: ["events"], verbs: ["create", "patch"]"#), "{troubles:?}");
    });
}

#[test]
fn p78_that_names_open_nothing_is_said_on_their_policies() {
    let mut control = Control::new("not-served");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        let definition = definition_of("cluster-network-policy-experimental", "v1beta1");
        create_of_cluster::<CustomResourceDefinition>(&admin, definition).await;
        let spec = |peer: serde_json::Value| {
            let rule = json!({"action": "Accept", "to": [peer]});
            json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]})
        };
        let names = spec(json!({"domainNames": ["example.com", "*.example.org"]}));
        let uid = make_with(&admin, "v1beta1", "names", &names).await;
        make_with(&admin, "v1beta1", "others", &spec(json!({"namespaces": {}}))).await;

        // The model of an agent, with what its watch tells.
        let mut feed = Feed::start(control.cluster(ADMIN, FIRST), Interest::Node(NODE.to_owned()));
        let both = ["names", "others"];
        feed.until("the policies are there", |feed| both.iter().all(|name| feed.has(Kind::ClusterNetworkPolicy, name)))
            .await;
        let mut model = Model::new(NODE);
        feed.objects.into_values().for_each(|object| model.take(Told::Applied(object)));
        let recorder = Recorder::start(control.cluster(ADMIN, FIRST), NODE);
        warn_not_served(&model, &recorder);
        warn_not_served(&model, &recorder);
        recorder.warn(Kind::Node, &ObjectKey::cluster(NODE), "", "Last", "nothing comes after this");
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            loop {
                let (last, found): (Vec<_>, Vec<_>) =
                    events(&admin).await.into_iter().partition(|event| event.reason.as_deref() == Some("Last"));
                if last.len() == 1 {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
        let found = found.await.expect("the events are written");
        let [event] = found.as_slice() else { panic!("one event, on the policy with names: {found:#?}") };
        assert_eq!(event.reason.as_deref(), Some("NamesNotServed"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.note.as_deref(), Some(NOT_SERVED));
        for word in ["domainNames", "fairlead-dns", "--names-dir", "CoreDNS"] {
            assert!(NOT_SERVED.contains(word), "what to do: {word}");
        }
        let regarding = event.regarding.as_ref().unwrap();
        assert_eq!(
            (regarding.kind.as_deref(), regarding.name.as_deref()),
            (Some("ClusterNetworkPolicy"), Some("names"))
        );
        assert_eq!(regarding.api_version.as_deref(), Some("policy.networking.k8s.io/v1beta1"));
        assert_eq!(regarding.uid, uid, "kubectl describe finds events by uid");
    });
}
