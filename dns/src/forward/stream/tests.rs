use std::sync::atomic::AtomicUsize;

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::question::Wants;
use super::*;
use crate::WireName;
use crate::wire::RecordType;

fn question(number: usize) -> Question {
    let name = WireName::parse(&format!("www-{number}.example")).unwrap();
    Question::new(name.as_wire(), RecordType::A, Wants::default())
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

/// What a server is: how many questions it answers on a connection, and in turn or as they come.
#[derive(Clone, Copy)]
struct Manner {
    most: usize,
    in_turn: bool,
}

const PLAIN: Manner = Manner { most: usize::MAX, in_turn: true };

/// Answers every question with itself, but for `www-0`, and counts connections.
async fn server(manner: Manner) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, manner));
        }
    });
    (address, connections)
}

async fn serve(mut stream: TcpStream, Manner { most, in_turn }: Manner) {
    for _ in 0..most {
        let Ok(length) = stream.read_u16().await else { return };
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.unwrap();
        if message.windows(5).any(|bytes| bytes == b"www-0") {
            if in_turn {
                // Nothing is answered behind it either.
                std::future::pending::<()>().await;
            }
            continue;
        }
        message[2] |= 0x80;
        // Whoever asked may have gone.
        let _gone = stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await;
    }
}

/// Tries a few times whether so many connections are made: where the machine stops for a moment one more is right.
async fn makes(wanted: usize, connections: impl AsyncFn() -> usize) {
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(connections().await);
        if made.last() == Some(&wanted) {
            return;
        }
    }
    panic!("{made:?} connections are made, and never {wanted}");
}

#[test]
fn questions_that_come_at_once_make_one_connection() {
    run(makes(1, async || {
        let (address, connections) = server(PLAIN).await;
        let lines = Lines::new(address, None);
        let questions: Vec<Question> = (1..=100).map(question).collect();
        let answers = join_all(questions.iter().map(|question| lines.ask(question, false))).await;
        assert!(answers.iter().all(Result::is_ok));
        connections.load(Ordering::Relaxed)
    }));
}

#[test]
fn a_server_that_closes_after_some_questions_answers_a_burst() {
    run(async {
        for (most, questions) in [(128, 300), (1, 20)] {
            let (address, _) = server(Manner { most, ..PLAIN }).await;
            let lines = Lines::new(address, None);
            let questions: Vec<Question> = (1..=questions).map(question).collect();
            let answers = join_all(questions.iter().map(|question| lines.ask(question, false))).await;
            assert!(answers.iter().all(Result::is_ok), "{most} on each connection");
        }
    });
}

#[test]
fn a_server_that_answers_nothing_and_closes_is_given_up() {
    run(async {
        let (address, connections) = server(Manner { most: 0, ..PLAIN }).await;
        let lines = Lines::new(address, None);
        assert!(lines.ask(&question(1), false).await.is_err());
        assert_eq!(connections.load(Ordering::Relaxed), TRIES);
    });
}

#[test]
fn a_late_answer_holds_back_no_other_of_a_server_that_answers_in_turn() {
    run(makes(2, async || {
        let (address, connections) = server(PLAIN).await;
        let lines = Lines::new(address, None);
        let late = question(0);
        let late = lines.ask(&late, false);
        let others = async {
            // Those that are behind it, and those that come later.
            for round in 0..3 {
                let questions: Vec<Question> = (1..=50).map(|number| question(round * 50 + number)).collect();
                let answers = join_all(questions.iter().map(|question| lines.ask(question, false)));
                // A connection on which nothing comes ends after ten seconds.
                let answers = timeout(Duration::from_secs(8), answers).await.expect("nothing is held back");
                assert!(answers.iter().all(Result::is_ok), "in round {round}");
            }
        };
        tokio::select! {
            biased;
            answer = late => panic!("nobody answers it: {answer:?}"),
            () = others => {}
        }
        connections.load(Ordering::Relaxed)
    }));
}

#[test]
fn every_connection_but_one_may_be_held_up() {
    run(async {
        let (address, connections) = server(PLAIN).await;
        let lines = Lines::new(address, None);
        let late: Vec<_> = (0..LINES - 1).map(|_| question(0)).collect();
        let late = async {
            // Each on a connection of its own, since the one before is held up.
            let asked = late.iter().enumerate().map(|(at, question)| {
                let lines = &lines;
                async move {
                    sleep(HELD * 2 * u32::try_from(at).unwrap()).await;
                    lines.ask(question, false).await
                }
            });
            join_all(asked).await
        };
        let other = async {
            while connections.load(Ordering::Relaxed) < LINES - 1 {
                sleep(Duration::from_millis(5)).await;
            }
            let answer = timeout(Duration::from_secs(8), lines.ask(&question(1), false)).await;
            assert!(answer.expect("nothing is held back").is_ok());
        };
        tokio::select! {
            biased;
            _ = late => panic!("nobody answers them"),
            () = other => {}
        }
    });
}

#[test]
fn a_server_that_answers_out_of_turn_gets_one_connection_whatever_is_late() {
    run(makes(1, async || {
        let (address, connections) = server(Manner { in_turn: false, ..PLAIN }).await;
        let lines = Lines::new(address, None);
        let late = question(0);
        let late = lines.ask(&late, false);
        let others = async {
            for number in 1..=5 {
                assert!(lines.ask(&question(number), false).await.is_ok());
                sleep(HELD).await;
            }
        };
        tokio::select! {
            biased;
            answer = late => panic!("nobody answers it: {answer:?}"),
            () = others => {}
        }
        connections.load(Ordering::Relaxed)
    }));
}

#[test]
fn a_question_goes_where_something_comes_and_to_nobody_where_all_is_full() {
    let state =
        |waiting, quiet: u64| State { waiting, quiet: Duration::from_millis(quiet), answered: 0, closed: false };
    let choose = |lines: &[State]| choose(lines, HELD);
    assert_eq!(choose(&[]), Choice::Open);
    assert_eq!(choose(&[state(7, 0), state(3, 20), state(0, 0)]), Choice::Use(2));
    assert_eq!(choose(&[state(7, 150), state(9, 20)]), Choice::Use(1));
    assert_eq!(choose(&[state(7, 150), state(9, 100)]), Choice::Open);
    assert_eq!(choose(&[state(MOST, 0)]), Choice::Open);
    assert_eq!(choose(&[State { closed: true, ..state(0, 0) }, state(9, 0)]), Choice::Use(1));
    assert_eq!(choose(&vec![state(7, 150); LINES]), Choice::Use(0));
    assert_eq!(choose(&vec![state(MOST, 0); LINES]), Choice::Full);
}

#[test]
fn more_questions_than_have_room_are_refused_in_words() {
    run(async {
        let (address, _) = server(Manner { in_turn: false, ..PLAIN }).await;
        let lines = Lines::new(address, None);
        let questions: Vec<Question> = (0..MOST * LINES + 1).map(|_| question(0)).collect();
        let mut asked: Vec<_> = questions.iter().map(|question| Box::pin(lines.ask(question, false))).collect();
        let refused = std::future::poll_fn(|context| {
            for asked in &mut asked {
                if let std::task::Poll::Ready(answer) = asked.poll_unpin(context) {
                    return std::task::Poll::Ready(answer);
                }
            }
            std::task::Poll::Pending
        });
        let refused = timeout(Duration::from_secs(60), refused).await.expect("an answer at once");
        assert_eq!(refused.unwrap_err().to_string(), "4096 questions wait for it already on each of 8 connections");
    });
}

#[test]
fn a_connection_is_made_though_who_asked_for_it_gives_up() {
    run(async {
        let (address, connections) = server(PLAIN).await;
        let lines = Lines::new(address, None);
        let first = question(1);
        // It is polled once, and dropped.
        assert!(lines.ask(&first, false).now_or_never().is_none());
        assert!(lines.ask(&question(2), false).await.is_ok());
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn who_waits_for_a_connection_that_fails_does_not_try_after_it() {
    run(async {
        // An address of its own: nobody else listens there meanwhile.
        let [.., a, b] = std::process::id().to_be_bytes();
        let lines = Lines::new(SocketAddr::from(([127, 53, a, b], 1055)), None);
        let questions: Vec<Question> = (1..=100).map(question).collect();
        let answers = join_all(questions.iter().map(|question| lines.ask(question, false))).await;
        let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap_err().kind()).collect();
        assert!(kinds.iter().all(|kind| *kind == io::ErrorKind::ConnectionRefused), "{kinds:?}");
    });
}

#[test]
fn who_gives_up_spoils_no_connection() {
    run(async {
        let (address, connections) = server(PLAIN).await;
        let lines = Lines::new(address, None);
        assert!(lines.ask(&question(1), false).await.is_ok());
        for number in 2..200 {
            // Its question may be half written by now.
            assert!(lines.ask(&question(number), false).now_or_never().is_none());
        }
        assert!(lines.ask(&question(200), false).await.is_ok());
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    });
}
