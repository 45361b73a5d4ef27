//! A long outage of every API server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use crate::beside::questions::Question;
use crate::beside::{Server, world};
use crate::control::{ADMIN, Control, FIRST};
use crate::feed::{create, wait};

/// How long it lasts, and how often servers are asked meanwhile.
const OUTAGE: Duration = Duration::from_secs(10 * 60);
const PACE: Duration = Duration::from_secs(2);

/// Status and text of `/ready`, or nothing where nobody answers.
fn ready(at: &str) -> Option<(u16, String)> {
    let address: SocketAddr = at.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(20)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: dns\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[test]
#[ignore = "it takes eleven minutes: `cargo xtask test --full`"]
fn ten_minutes_without_an_api_server_take_no_dns_server_out_of_service() {
    let mut control = Control::new("outage");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let flags = ["--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112"];
    let admin = runtime.block_on(async {
        control.serve(FIRST, &[FIRST], &flags).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        world::fill(&admin).await;
        admin
    });
    let program = fairlead_tests::binary("fairlead-dns").unwrap();
    let kubeconfig = control.kubeconfig(ADMIN, FIRST, "").display().to_string();
    let arguments = |place: u16| {
        let at = |flag: &str, port: u16| [format!("--{flag}"), format!("127.0.0.1:{port}")];
        let places = [("listen", 1000), ("health-bind", 2000), ("ready-bind", 3000), ("metrics-bind", 4000)];
        let mut arguments: Vec<String> = places.into_iter().flat_map(|(flag, base)| at(flag, base + place)).collect();
        arguments.extend(["--kubeconfig".to_owned(), kubeconfig.clone()]);
        arguments
    };
    let places = [1, 2, 3];
    let servers = places.map(|place| {
        let arguments = arguments(place);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Server::start(control.dir(), &format!("dns-{place}"), &program, &arguments, 1000 + place)
    });
    let at = |place: u16| format!("127.0.0.1:{}", 3000 + place);
    for place in places {
        assert_eq!(ready(&at(place)), Some((200, "OK".to_owned())));
    }

    control.kill(FIRST);
    let (begin, question) = (Instant::now(), Question::plain("web.shop.svc.cluster.local", 1));
    let mut stale = [false; 3];
    while begin.elapsed() < OUTAGE {
        for ((place, server), stale) in places.into_iter().zip(&servers).zip(&mut stale) {
            let (status, text) = ready(&at(place)).expect("it answers");
            assert_eq!(status, 200, "{place} after {:?}: {text}", begin.elapsed());
            *stale |= text.contains("stale: ");
            assert!(server.ask(&question).has_answers(), "{place} after {:?}", begin.elapsed());
        }
        thread::sleep(PACE);
    }
    assert_eq!(stale, [true; 3], "that answers may be old is said");

    runtime.block_on(async {
        control.serve(FIRST, &[FIRST], &flags).await;
        create::<Service>(&admin, "shop", json!({"metadata": {"name": "new"}, "spec": {"ports": [{"port": 80}]}}))
            .await;
        let new = Question::plain("new.shop.svc.cluster.local", 1);
        wait("what is new arrives", || servers.iter().all(|server| server.ask(&new).has_answers())).await;
        let fresh = || places.into_iter().all(|place| ready(&at(place)) == Some((200, "OK".to_owned())));
        wait("nothing is stale any more", fresh).await;
    });
}
