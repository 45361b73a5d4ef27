use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::task::Poll;
use std::time::Instant;

use super::*;

/// Serves on a free port for as long as the test runs.
fn start() -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let handler = |path: &str| match path {
        "/long" => Answer::text(200, "x".repeat(1 << 20)),
        path => Answer::json(503, path.to_owned()).with("X-Odd", "a\nb"),
    };
    runtime.spawn(serve(listener, Arc::new(handler)));
    (runtime, address)
}

fn say(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    let _reset = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn answers_have_status_headers_and_body() {
    let (_runtime, address) = start();
    let answer = say(address, "POST /health?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").to_lowercase();
    assert!(answer.starts_with("http/1.1 503 service unavailable\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n/health"), "{answer}");
}

#[test]
fn garbage_is_refused() {
    let (_runtime, address) = start();
    assert!(say(address, "\u{1}\u{2}rubbish\r\n\r\n").starts_with("HTTP/1.1 400"));
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * LONGEST));
    let answer = say(address, &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(say(address, "GET / HTTP/1.0\r\n\r\n").contains("503"));
}

#[test]
fn slow_clients_keep_nobody_from_an_answer() {
    let (_runtime, address) = start();
    let mut slow = Vec::new();
    for n in 0..CONNECTIONS + 20 {
        let mut stream = TcpStream::connect(address).unwrap();
        // Some never finish their request, some never read a long answer.
        stream.write_all(if n % 2 == 0 { b"GET / HT" } else { b"GET /long HTTP/1.1\r\n\r\n" }).unwrap();
        slow.push(stream);
    }
    let begin = Instant::now();
    assert!(say(address, "GET / HTTP/1.0\r\n\r\n").contains("503"));
    assert!(begin.elapsed() < HEAD, "{:?}", begin.elapsed());
}

#[test]
fn an_address_that_is_taken_is_waited_for() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handler = Arc::new(|_: &str| Answer::text(200, "ok"));
    let mut kept = Box::pin(keep(address, "a test", "stop the other", handler));
    // The first attempt is made, and fails.
    let pending = runtime.block_on(poll_fn(|context| Poll::Ready(kept.as_mut().poll(context).is_pending())));
    assert!(pending);
    drop(taken);
    std::thread::spawn(move || runtime.block_on(kept));
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(say(address, "GET / HTTP/1.0\r\n\r\n").ends_with("ok"));
    // Two of ours may share it: one takes over from the other.
    listen(address).unwrap();
}
