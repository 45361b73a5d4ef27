use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::{Event, Kind, Source};

/// A directory of its own for a test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fairlead-objects-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Replaces a file as its users are asked to.
    fn put(&self, file: &str, text: &str) {
        let temporary = self.0.join(format!(".{file}"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.0.join(file)).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn namespace(name: &str) -> String {
    format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")
}

fn start(dir: &Path) -> Receiver<Event> {
    Source::Directory(dir.to_owned()).spawn()
}

/// The next event, in short.
async fn next(events: &mut Receiver<Event>) -> String {
    match timeout(Duration::from_secs(10), events.recv()).await.expect("an event in time").expect("a live source") {
        Event::Applied(object) => format!("+{}", object.key()),
        Event::Deleted(_, key) => format!("-{key}"),
        Event::Synced(kind) => format!("={}", kind.as_str()),
        Event::Invalid { origin, reason, .. } => format!("!{origin}: {reason}"),
        Event::Mended { origin, .. } => format!("~{origin}"),
    }
}

async fn synced(events: &mut Receiver<Event>) {
    for kind in Kind::ALL {
        assert_eq!(next(events).await, format!("={}", kind.as_str()));
    }
}

async fn silent(events: &mut Receiver<Event>) {
    assert!(timeout(Duration::from_millis(100), events.recv()).await.is_err());
}

#[tokio::test]
async fn s54_synced_follows_the_first_full_read() {
    let dir = Dir::new("first");
    dir.put("a.yaml", &namespace("a"));
    dir.put("b.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b"}}"#);
    dir.put("c.txt", &namespace("c"));
    dir.put(".d.yaml", &namespace("d"));
    std::fs::create_dir(dir.0.join("e.yaml")).unwrap();
    let mut events = start(&dir.0);
    assert_eq!([next(&mut events).await, next(&mut events).await], ["+a", "+b"]);
    synced(&mut events).await;
    silent(&mut events).await;
}

#[tokio::test]
async fn changes_are_followed() {
    let dir = Dir::new("changes");
    let mut events = start(&dir.0);
    synced(&mut events).await;
    dir.put("a.yaml", &namespace("a"));
    assert_eq!(next(&mut events).await, "+a");
    dir.put("a.yaml", &namespace("b"));
    assert_eq!([next(&mut events).await, next(&mut events).await], ["+b", "-a"]);
    dir.put("a.yaml", "kind: [");
    assert!(next(&mut events).await.starts_with("!a.yaml: document 1: not YAML"));
    std::fs::write(dir.0.join("a.yaml"), b"\xff").unwrap();
    assert_eq!(next(&mut events).await, "~a.yaml: document 1");
    assert!(next(&mut events).await.starts_with("!a.yaml: not UTF-8"));
    silent(&mut events).await;
    std::fs::remove_file(dir.0.join("a.yaml")).unwrap();
    assert_eq!([next(&mut events).await, next(&mut events).await], ["~a.yaml", "-b"]);
    silent(&mut events).await;
}

#[tokio::test]
async fn links_to_a_replaced_directory_are_followed() {
    let dir = Dir::new("links");
    for (data, name) in [("..1", "a"), ("..2", "b")] {
        std::fs::create_dir(dir.0.join(data)).unwrap();
        std::fs::write(dir.0.join(data).join("f.yaml"), namespace(name)).unwrap();
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, dir.0.join(".tmp")).unwrap();
        std::fs::rename(dir.0.join(".tmp"), dir.0.join(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/f.yaml", "f.yaml");
    let mut events = start(&dir.0);
    assert_eq!(next(&mut events).await, "+a");
    synced(&mut events).await;
    link("..2", "..data");
    assert_eq!([next(&mut events).await, next(&mut events).await], ["+b", "-a"]);
}

#[tokio::test]
async fn a_directory_that_is_missing_is_said_and_awaited() {
    let dir = Dir::new("missing");
    let inner = dir.0.join("objects");
    let mut events = start(&inner);
    let said = next(&mut events).await;
    assert!(said.ends_with("create it or correct --objects"), "{said}");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("a.yaml"), namespace("a")).unwrap();
    assert_eq!(next(&mut events).await, "+a");
    synced(&mut events).await;
    // What it gave stays when it goes, and is compared when it comes back.
    std::fs::remove_dir_all(&inner).unwrap();
    loop {
        let said = next(&mut events).await;
        if said.starts_with('!') {
            break;
        }
        // Whether the file's own end was seen before the directory's is a matter of time.
        assert_eq!(said, "-a");
    }
}

#[tokio::test]
async fn it_ends_with_its_listener() {
    let dir = Dir::new("ends");
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let path = dir.0.clone();
    let task = tokio::spawn(async move { super::watch(&path, sender).await });
    drop(receiver);
    timeout(Duration::from_secs(10), task).await.expect("an end in time").unwrap();
}
