//! Which interface is whose, on disk, so that an agent that starts anew knows the pods of the one before at once, each in its slot.
//!
//! A file of JSON lines for one boot, written as a whole when something changes: interfaces don't outlive one.

use std::io;
use std::path::Path;

use fairlead_files::FileError;
use serde::{Deserialize, Serialize};

use super::ForeignPod;
use crate::lines::{behind, line};

/// The layout of the file.
const VERSION: u32 = 1;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    foreign: u32,
    boot_id: String,
}

/// What the file has, if it is of this boot. A line that can't be read is left out.
///
/// # Errors
/// The file can't be read.
pub fn load(path: &Path, boot_id: &str) -> io::Result<Vec<ForeignPod>> {
    let content = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        content => content?,
    };
    let header = Header { foreign: VERSION, boot_id: boot_id.to_owned() };
    let Ok(lines) = behind(&content, &header) else { return Ok(Vec::new()) };
    let pod = |line| {
        let pod = serde_json::from_slice(line);
        pod.inspect_err(|error| tracing::warn!(%error, "skipping an unreadable line about a pod")).ok()
    };
    Ok(lines.filter_map(pod).collect())
}

/// Writes the file.
///
/// # Errors
/// It can't be written.
pub fn save(path: &Path, boot_id: &str, pods: &[ForeignPod]) -> Result<(), FileError> {
    let failed = |error| FileError::new("write", path, error);
    let mut content = line(&Header { foreign: VERSION, boot_id: boot_id.to_owned() }).map_err(failed)?;
    for pod in pods {
        content.extend(line(pod).map_err(failed)?);
    }
    fairlead_files::put(path, &content, 0o644).map(drop)
}

#[cfg(test)]
mod tests {
    use fairlead_cni::Mac;
    use fairlead_objects::ObjectKey;

    use super::*;

    #[test]
    fn c56_what_was_found_is_known_again_in_the_same_boot_alone() {
        let directory = std::env::temp_dir().join(format!("fairlead-foreign-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("foreign-pods");
        assert_eq!(load(&path, "boot").unwrap(), []);
        let pod = ForeignPod {
            slot: 3,
            ifindex: 17,
            link: "veth17".into(),
            key: ObjectKey::new("shop", "web"),
            uid: "u".into(),
            ips: vec!["10.244.1.5".parse().unwrap()],
            pod_mac: Mac([2; 6]),
            host_mac: Mac([4; 6]),
        };
        save(&path, "boot", std::slice::from_ref(&pod)).unwrap();
        assert_eq!(load(&path, "boot").unwrap(), [pod]);
        assert_eq!(load(&path, "another").unwrap(), []);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
