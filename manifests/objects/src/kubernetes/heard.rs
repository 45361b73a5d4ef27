//! When each watch was heard last.
//!
//! Bookmarks, which a server sends every minute or so where nothing changes, end in the watcher: they are seen here as bytes
//! of an answer.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tower::BoxError;

use super::servers::Servers;
use crate::Kind;

/// A watch that is open and says nothing for so long is not alive: three bookmarks have not come.
const SILENT: Duration = Duration::from_secs(180);

/// How the watch of a kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchState {
    /// What is watched.
    pub kind: Kind,
    /// Whether the server has it open, and has said something of late.
    pub alive: bool,
    /// How long ago it said something: an event, a part of a list, or a bookmark.
    pub age: Duration,
}

/// Every kind that was heard of.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<BTreeMap<Kind, Ear>>);

#[derive(Debug)]
struct Ear {
    /// Answers that are open: for a moment there may be two, or none.
    open: usize,
    last: Instant,
}

impl Heard {
    fn ears(&self) -> MutexGuard<'_, BTreeMap<Kind, Ear>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, now: Instant, opened: usize) {
        let mut ears = self.ears();
        let ear = ears.entry(kind).or_insert(Ear { open: 0, last: now });
        ear.last = now;
        ear.open += opened;
    }

    fn closed(&self, kind: Kind) {
        if let Some(ear) = self.ears().get_mut(&kind) {
            ear.open = ear.open.saturating_sub(1);
        }
    }

    /// There is nothing to be heard of a kind any more: the server does not serve it.
    pub(super) fn forget(&self, kind: Kind) {
        self.ears().remove(&kind);
    }

    /// How the watches are.
    pub(super) fn states(&self, now: Instant) -> Vec<WatchState> {
        let ears = self.ears();
        let state = |(kind, Ear { open, last }): (&Kind, &Ear)| {
            let age = now.saturating_duration_since(*last);
            WatchState { kind: *kind, alive: *open > 0 && age < SILENT, age }
        };
        ears.iter().map(state).collect()
    }
}

/// What a request watches.
pub(super) fn watched(uri: &Uri) -> Option<Kind> {
    let query = uri.query().unwrap_or_default();
    if !query.split('&').any(|pair| pair == "watch=true") {
        return None;
    }
    match uri.path().rsplit('/').next()? {
        "nodes" => Some(Kind::Node),
        "namespaces" => Some(Kind::Namespace),
        "services" => Some(Kind::Service),
        "endpointslices" => Some(Kind::EndpointSlice),
        "networkpolicies" => Some(Kind::NetworkPolicy),
        "clusternetworkpolicies" => Some(Kind::ClusterNetworkPolicy),
        "pods" => Some(Kind::Pod),
        _ => None,
    }
}

/// The body of an answer; if it is a watch's, what comes in it is noted. Of any other the rest is not waited for without end: a
/// server that hangs in the middle keeps its connection, which the kernel answers for.
#[derive(Debug)]
pub(super) struct Tapped<B> {
    inner: B,
    watch: Option<(Arc<Heard>, Kind)>,
    silence: Option<Silence>,
}

/// How long nothing may come, when that is over, and whose fault it is.
#[derive(Debug)]
struct Silence {
    longest: Duration,
    end: Pin<Box<Sleep>>,
    servers: Arc<Servers>,
    address: String,
}

impl<B> Tapped<B> {
    /// An answer of no watch, by one of the servers, of which something comes at least this often.
    pub(super) fn plain(inner: B, longest: Duration, servers: Arc<Servers>, address: String) -> Self {
        let silence = Silence { longest, end: Box::pin(sleep(longest)), servers, address };
        Self { inner, watch: None, silence: Some(silence) }
    }

    /// An answer to a watch: it is open from now on.
    pub(super) fn watch(inner: B, heard: Arc<Heard>, kind: Kind) -> Self {
        heard.note(kind, Instant::now(), 1);
        // The watcher itself gives up one that says nothing for longer than the server would keep it.
        Self { inner, watch: Some((heard, kind)), silence: None }
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for Tapped<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context).map_err(Into::into);
        match &polled {
            Poll::Ready(Some(Ok(_))) => {
                if let Some((heard, kind)) = &self.watch {
                    heard.note(*kind, Instant::now(), 0);
                }
                if let Some(Silence { longest, end, .. }) = &mut self.silence {
                    end.as_mut().reset(tokio::time::Instant::now() + *longest);
                }
            }
            // An end that is noted twice would close another's.
            Poll::Ready(_) => drop(self.watch.take().inspect(|(heard, kind)| heard.closed(*kind))),
            Poll::Pending => {
                if let Some(Silence { longest, end, servers, address }) = &mut self.silence
                    && end.as_mut().poll(context).is_ready()
                {
                    let text = format!("the API server stopped in the middle of an answer for {} s", longest.as_secs());
                    servers.failed(address, &text);
                    return Poll::Ready(Some(Err(text.into())));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for Tapped<B> {
    fn drop(&mut self) {
        if let Some((heard, kind)) = &self.watch {
            heard.closed(*kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(uri: &str) -> Option<Kind> {
        watched(&uri.parse().unwrap())
    }

    #[test]
    fn watches_are_told_from_lists_and_other_requests() {
        assert_eq!(kind("/api/v1/pods?&watch=true&timeoutSeconds=290"), Some(Kind::Pod));
        assert_eq!(
            kind("https://192.0.2.1:6443/apis/discovery.k8s.io/v1/endpointslices?watch=true"),
            Some(Kind::EndpointSlice)
        );
        assert_eq!(kind("/api/v1/pods?limit=100"), None);
        assert_eq!(kind("/api/v1/configmaps?watch=true"), None);
        assert_eq!(kind("/api/v1/pods?fieldSelector=a%26watch=true"), None);
    }

    /// A server that says something twice and then nothing, and keeps the connection.
    struct Hangs(u8);

    impl Body for Hangs {
        type Data = &'static [u8];
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
            self.0 += 1;
            if self.0 > 2 { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(&b"half"[..])))) }
        }
    }

    #[tokio::test]
    async fn s59_an_answer_that_stops_in_the_middle_is_an_error_and_a_quiet_watch_is_none() {
        let servers = Arc::new(Servers::of("192.0.2.1:6443", &["192.0.2.2:6443"]));
        let asked = servers.current();
        let mut plain = Tapped::plain(Hangs(0), Duration::from_millis(20), Arc::clone(&servers), asked.clone());
        let next = async |body: &mut Tapped<Hangs>, patience: u64| {
            let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
            let read = tokio::time::timeout(Duration::from_millis(patience), frame).await;
            read.ok().map(|frame| frame.map(|read| read.is_ok()))
        };
        for is_read in [true, true, false] {
            assert_eq!(next(&mut plain, 30_000).await, Some(Some(is_read)));
        }
        assert_ne!(servers.current(), asked, "the next request goes to another server");
        let mut watch = Tapped::watch(Hangs(2), Arc::default(), Kind::Pod);
        assert_eq!(next(&mut watch, 100).await, None, "that is for the watcher to say");
    }

    #[test]
    fn a_watch_is_alive_while_it_is_open_and_says_something() {
        let (heard, start) = (Heard::default(), Instant::now());
        let after = |seconds| {
            let states = heard.states(start + Duration::from_secs(seconds));
            states.first().map(|state| (state.alive, state.age.as_secs()))
        };
        assert_eq!(after(0), None, "what was never heard has no age");
        heard.note(Kind::Pod, start, 1);
        assert_eq!((after(60), after(179), after(180)), (Some((true, 60)), Some((true, 179)), Some((false, 180))));
        // The next one opens before the first has ended.
        heard.note(Kind::Pod, start + Duration::from_secs(200), 1);
        heard.closed(Kind::Pod);
        assert_eq!(after(210), Some((true, 10)));
        heard.closed(Kind::Pod);
        assert_eq!(after(210), Some((false, 10)), "the age goes on from what was heard last");
        heard.closed(Kind::Pod);
        heard.note(Kind::Pod, start + Duration::from_secs(220), 1);
        assert_eq!(after(220), Some((true, 0)));
    }
}
