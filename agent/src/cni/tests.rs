//! What the service does with requests that come while it works, in a network namespace of the test's own.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use fairlead_cni::protocol::{Attachment, DEFAULT_NETWORK, PodRef, Wanted};
use fairlead_objects::ObjectKey;
use nix::sched::{CloneFlags, unshare};

use super::service::Service;
use super::{AttachError, AttachedPod, Health, Journal, KnownPod, NodeNetwork, PodNetwork};
use crate::wiring::{Netlink, PodLinks};

/// A datapath that notes what it is asked for.
#[derive(Debug, Default)]
struct Double {
    detached: Mutex<Vec<ObjectKey>>,
    deleted: Mutex<Vec<String>>,
}

impl PodNetwork for Double {
    fn health(&self) -> Health {
        Health::Ready
    }

    fn node(&self) -> Option<NodeNetwork> {
        let pod_cidrs = vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()];
        Some(NodeNetwork { pod_cidrs, mtu: 1500, addresses: Vec::new() })
    }

    fn pod(&self, _: &ObjectKey) -> Option<KnownPod> {
        Some(KnownPod { uid: String::new(), ips: Vec::new() })
    }

    fn owner(&self, _: IpAddr) -> Option<ObjectKey> {
        None
    }

    async fn attach(&self, _: AttachedPod) -> Result<(), AttachError> {
        Ok(())
    }

    async fn detach(&self, pod: AttachedPod) {
        self.detached.lock().unwrap().push(pod.key);
    }

    fn deleted(&self, host_link: &str) {
        self.deleted.lock().unwrap().push(host_link.to_owned());
    }
}

/// A directory of the test's own.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fairlead-service-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn service(&self) -> Arc<Service<Double>> {
        let links = PodLinks::new(Netlink::open().unwrap());
        let journal = Journal::open(&self.0.join("cni-journal"), "this boot").unwrap();
        Arc::new(Service::new(Arc::default(), links, &self.0.join("cni.sock"), journal, Vec::new()))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test on a thread in a new namespace.
fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async { test().await });
    };
    std::thread::spawn(run).join().unwrap();
}

fn attachment(id: &str) -> Attachment {
    Attachment { container_id: id.to_owned(), ifname: "eth0".to_owned() }
}

async fn reserve(service: &Service<Double>, id: &str) {
    let pod = PodRef { namespace: "default".to_owned(), name: id.to_owned(), uid: None };
    let netns = ("/proc/self/ns/net".to_owned(), 1);
    let network = DEFAULT_NETWORK.to_owned();
    service.reserve(&attachment(id), pod, netns, network, Wanted::default()).await.unwrap();
}

#[test]
fn an_add_that_succeeds_while_a_new_agent_cleans_up_is_kept() {
    on_a_node(|| async {
        let directory = Directory::new();
        reserve(&directory.service(), "left").await;
        let service = directory.service();
        let unfinished = service.unfinished();
        reserve(&service, "late").await;
        // As if the list had been made later: what decides is what is there when it has its turn.
        let listed = service.unfinished();
        assert_eq!((unfinished.len(), listed.len()), (1, 2));
        let turn = service.container("late").await;
        let cleaning = tokio::spawn({
            let service = Arc::clone(&service);
            async move { service.release_unfinished(listed).await }
        });
        tokio::task::yield_now().await;
        service.attach(&attachment("late")).await.unwrap();
        drop(turn);
        cleaning.await.unwrap();
        let attached: Vec<_> = service.attached().into_iter().map(|pod| pod.container_id).collect();
        assert_eq!(attached, ["late"]);
        assert!(service.unfinished().is_empty());
        assert_eq!(*service.network.detached.lock().unwrap(), [ObjectKey::new("default", "left")]);
        assert_eq!(*service.network.deleted.lock().unwrap(), [attachment("left").host_link()]);
    });
}

#[test]
fn what_is_reserved_after_the_start_is_not_taken_back() {
    on_a_node(|| async {
        let directory = Directory::new();
        let service = directory.service();
        let unfinished = service.unfinished();
        reserve(&service, "new").await;
        service.release_unfinished(unfinished).await;
        service.attach(&attachment("new")).await.unwrap();
        assert!(service.network.detached.lock().unwrap().is_empty());
    });
}
