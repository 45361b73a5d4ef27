//! A kustomization, as far as the manifests use it.

use serde::Deserialize;

/// What a `kustomization.yaml` may have here. Any other field is an error: what is made of it would be something else than
/// what kustomize gives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    /// Files and directories with objects.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Directories of components.
    #[serde(default)]
    pub components: Vec<String>,
    /// What is changed.
    #[serde(default)]
    pub patches: Vec<Patch>,
}

/// A change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// What it is for, if it does not say so itself.
    pub target: Option<Target>,
    /// A strategic merge, or a list of JSON patch operations.
    pub patch: String,
}

/// What a patch is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The kind of the objects.
    pub kind: String,
    /// The name of one of them.
    pub name: Option<String>,
}

impl Kustomization {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or has a field that is not known here.
    pub fn read(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_known_is_an_error() {
        let plain = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n";
        assert_eq!(Kustomization::read(plain).unwrap().resources, ["a.yaml"]);
        let error = Kustomization::read(&format!("{plain}namePrefix: x-\n")).unwrap_err();
        assert!(error.to_string().contains("namePrefix"), "{error}");
    }
}
