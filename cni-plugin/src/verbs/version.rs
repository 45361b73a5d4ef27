//! VERSION

use serde_json::{Map, Value, json};

use crate::{Error, Version, conf};

/// The versions that are served. `cniVersion` repeats the input's, and is the newest where there is none.
pub(crate) fn version(object: &Map<String, Value>) -> Result<Value, Error> {
    let spoken = if object.contains_key("cniVersion") { conf::version(object)? } else { Version::V1_1_0 };
    Ok(json!({"cniVersion": spoken.as_str(), "supportedVersions": Version::ALL.map(Version::as_str)}))
}
