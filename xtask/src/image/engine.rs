//! What the archive can be loaded into.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Result, bail};

/// An engine, and which of them where there may be several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Engine {
    /// The nodes of `cargo xtask cluster`.
    Cluster(Option<String>),
    Kind(Option<String>),
    Minikube(Option<String>),
    Docker,
    Podman,
    Containerd(Option<String>),
}

impl Engine {
    /// The command that loads an archive.
    pub(super) fn load(&self, archive: &Path) -> Result<Command> {
        let (program, mut words): (_, Vec<&str>) = match self {
            // This program's own command.
            Self::Cluster(_) => ("", vec!["cluster", "load"]),
            Self::Kind(_) => ("kind", vec!["load", "image-archive"]),
            Self::Minikube(_) => ("minikube", vec!["image", "load"]),
            Self::Docker => ("docker", vec!["load", "--input"]),
            Self::Podman => ("podman", vec!["load", "--input"]),
            Self::Containerd(None) => ("ctr", vec![]),
            Self::Containerd(Some(socket)) => ("ctr", vec!["--address", socket]),
        };
        if matches!(self, Self::Containerd(_)) {
            // kubelet's namespace.
            words.extend(["--namespace", "k8s.io", "images", "import"]);
        }
        let program = if program.is_empty() { env::current_exe()? } else { PathBuf::from(program) };
        let mut command = Command::new(program);
        command.args(words).arg(archive);
        match self {
            Self::Cluster(Some(cluster)) | Self::Kind(Some(cluster)) => drop(command.args(["--name", cluster])),
            Self::Minikube(Some(profile)) => drop(command.args(["--profile", profile])),
            _ => {}
        }
        Ok(command)
    }
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (engine, which) = match text.split_once('=') {
            Some((engine, which)) => (engine, Some(which.to_owned())),
            None => (text, None),
        };
        Ok(match (engine, which) {
            ("cluster", which) => Self::Cluster(which),
            ("kind", which) => Self::Kind(which),
            ("minikube", which) => Self::Minikube(which),
            ("containerd", which) => Self::Containerd(which),
            ("docker", None) => Self::Docker,
            ("podman", None) => Self::Podman,
            ("docker" | "podman", Some(_)) => bail!("there is one {engine}: give {engine} alone"),
            _ => bail!("{engine} is not one of cluster, kind, minikube, docker, podman, containerd"),
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (engine, which) = match self {
            Self::Cluster(which) => ("cluster", which.as_ref()),
            Self::Kind(which) => ("kind", which.as_ref()),
            Self::Minikube(which) => ("minikube", which.as_ref()),
            Self::Docker => ("docker", None),
            Self::Podman => ("podman", None),
            Self::Containerd(which) => ("containerd", which.as_ref()),
        };
        f.write_str(engine)?;
        which.map_or(Ok(()), |which| write!(f, " ({which})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let command = text.parse::<Engine>().unwrap().load(Path::new("x.tar")).unwrap();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_engine_has_its_command() {
        let cluster = line("cluster=two");
        assert!(cluster.ends_with(" cluster load x.tar --name two"), "{cluster}");
        assert_eq!(line("kind"), "kind load image-archive x.tar");
        assert_eq!(line("kind=two"), "kind load image-archive x.tar --name two");
        assert_eq!(line("minikube=m"), "minikube image load x.tar --profile m");
        assert_eq!(line("docker"), "docker load --input x.tar");
        assert_eq!(line("podman"), "podman load --input x.tar");
        assert_eq!(line("containerd"), "ctr --namespace k8s.io images import x.tar");
        assert_eq!(line("containerd=/run/c.sock"), "ctr --address /run/c.sock --namespace k8s.io images import x.tar");
    }

    #[test]
    fn another_engine_is_refused_by_name() {
        assert!("rkt".parse::<Engine>().unwrap_err().to_string().starts_with("rkt is not one of"));
        assert!("docker=x".parse::<Engine>().unwrap_err().to_string().contains("docker alone"));
    }
}
