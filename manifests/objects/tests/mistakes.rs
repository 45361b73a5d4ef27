//! Real manifests with mistakes: what is wrong is named, and nothing else is disturbed.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, process};

use fairlead_objects::{Event, Kind, NetworkPolicy, Object, Peer, Selector, Source, directory, read_str};
use tokio::sync::mpsc::Receiver;

fn data() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("`cargo test` sets it")).join("../../tests/data")
}

/// What a file of mistakes gives: its objects, and what is said about them.
fn read(file: &str) -> (Vec<Object>, Vec<String>) {
    let text = fs::read_to_string(data().join("mistakes").join(file)).unwrap();
    let (objects, said): (Vec<_>, Vec<_>) = read_str(&text).into_iter().partition(Result::is_ok);
    let said = said.into_iter().map(|said| said.unwrap_err().to_string());
    (objects.into_iter().map(Result::unwrap).collect(), said.collect())
}

fn policy(file: &str) -> NetworkPolicy {
    match read(file) {
        (mut objects, said) if objects.len() == 1 && said.is_empty() => match objects.remove(0) {
            Object::NetworkPolicy(policy) => policy,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn services_without_address_are_named() {
    let (objects, said) = read("endpoints-missing.yaml");
    let kinds = |kind| objects.iter().filter(|object| object.kind() == kind).count();
    assert_eq!((kinds(Kind::Service), kinds(Kind::EndpointSlice)), (3, 4));
    let reason = "spec.clusterIP: no address; nothing allocates one here, so set spec.clusterIPs";
    assert_eq!(said, [format!("document 2: {reason}")]);
    assert_eq!(read("placeholder-address.yaml").1, [format!("document 2: {reason}")]);
}

#[test]
fn slices_without_endpoints_are_empty() {
    let (objects, _) = read("endpoints-missing.yaml");
    for object in objects {
        if let Object::EndpointSlice(slice) = object {
            assert_eq!((slice.endpoints.len(), slice.ports.len()), (0, 1), "{}", slice.key);
        }
    }
}

#[test]
fn items_without_kind_have_that_of_their_list() {
    let (namespaces, said) = read("list-of-namespaces.yaml");
    assert_eq!((namespaces.len(), said), (8, vec![]));
    assert!(namespaces.iter().all(|object| object.kind() == Kind::Namespace));
    let (pods, said) = read("list-of-pods.yaml");
    assert_eq!((pods.len(), said), (29, vec![]));
    assert!(pods.iter().all(|object| object.kind() == Kind::Pod));
}

#[test]
fn p4_null_labels_select_everything() {
    let policy = policy("null-labels.yaml");
    assert_eq!(policy.pod_selector, Selector::everything());
    assert_eq!((policy.ingress.unwrap().len(), policy.egress), (1, None));
}

#[test]
fn p6_both_types_without_egress_section_deny_egress() {
    let policy = policy("named-port.yaml");
    let ingress = policy.ingress.unwrap();
    assert_eq!((ingress[0].peers.len(), ingress[0].ports.len(), policy.egress), (1, 4, Some(vec![])));
    assert!(matches!(&ingress[0].peers[0], Peer::Pods { namespaces: Some(all), .. } if *all == Selector::everything()));
}

#[test]
fn kinds_that_are_not_read_are_left_out() {
    // Deployments are the control plane's; the namespace between them is there.
    assert_eq!(read("misspelt-port.yaml").0.len(), 1);
}

/// Whichever document of a file is damaged, the others are what they were.
#[test]
fn a_damaged_document_leaves_the_others_alone() {
    let text = fs::read_to_string(data().join("cluster/in-extra.yaml")).unwrap();
    let documents: Vec<&str> = text.split("---\n").filter(|document| !document.is_empty()).collect();
    let whole = read_str(&text);
    assert_eq!(whole.len(), documents.len());
    for (damage, says) in [("\n  - : [\n", "not YAML"), ("\nkind: Pod\n", "duplicate"), ("\nmetadata: 7\n", "")] {
        for broken in 0..documents.len() {
            let mut text = String::new();
            for (i, document) in documents.iter().enumerate() {
                text += "---\n";
                text += document;
                text += if i == broken { damage } else { "" };
            }
            let found = read_str(&text);
            assert_eq!(found.len(), whole.len(), "{damage:?} in {}", documents[broken]);
            for (i, (now, before)) in found.iter().zip(&whole).enumerate() {
                if i == broken {
                    let said = now.as_ref().unwrap_err();
                    assert_eq!(said.document, broken + 1);
                    assert!(said.reason.contains(says), "{said}");
                } else {
                    assert_eq!(now, before);
                }
            }
        }
    }
}

async fn next(events: &mut Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(10), events.recv())
        .await
        .expect("an event in time")
        .expect("a live source")
}

/// A directory with every mistake beside the good cluster: the cluster is all there, each mistake is said once.
#[tokio::test]
async fn mistakes_beside_a_cluster_disturb_nothing() {
    let good = directory::read_dir(&data().join("cluster")).unwrap();
    let mut expected: Vec<Object> =
        good.into_values().flatten().map(|result| result.expect("a good cluster")).collect();

    let dir = std::env::temp_dir().join(format!("fairlead-mistakes-{}", process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    for from in ["cluster", "mistakes"] {
        for entry in fs::read_dir(data().join(from)).unwrap() {
            let entry = entry.unwrap();
            // This one has a kube-system too.
            if entry.file_name() != "list-of-namespaces.yaml" {
                fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
            }
        }
    }
    fs::write(dir.join("broken.yaml"), "apiVersion: v1\nkind: Service\n\tmetadata:\n").unwrap();

    let mut events = Source::Directory(dir.clone()).spawn();
    let (mut applied, mut invalid) = (Vec::new(), Vec::new());
    loop {
        match next(&mut events).await {
            Event::Applied(object) => applied.push(object),
            Event::Invalid { origin, reason, .. } => invalid.push((origin, reason)),
            Event::Deleted(kind, key) => panic!("{kind:?} {key} was deleted"),
            Event::Synced(Kind::Pod) => break,
            Event::Synced(_) => {}
            Event::Mended { origin, reason } => panic!("{origin} was mended: {reason}"),
        }
    }
    expected.retain(|object| !applied.contains(object));
    assert_eq!(expected, []);
    let origins: Vec<&str> = invalid.iter().map(|(origin, _)| origin.as_str()).collect();
    assert_eq!(
        origins,
        [
            "broken.yaml: document 1",
            "endpoints-missing.yaml: document 2",
            "invalid-action.yaml: document 1",
            "invalid-action.yaml: document 1",
            "placeholder-address.yaml: document 2"
        ]
    );
    assert!(invalid[0].1.starts_with("not YAML: "), "{}", invalid[0].1);
    assert!(invalid[0].1.contains("(line 2, "), "{}", invalid[0].1);
    fs::remove_dir_all(&dir).unwrap();
}
