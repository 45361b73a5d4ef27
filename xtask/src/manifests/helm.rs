//! The Helm chart's templates: files of `base/` in which what can be set is a value.
//!
//! Each change names the text that it replaces and how often that is there, so that a change of `base/` which the chart does
//! not follow is an error here and nothing that a user finds.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::paths;

/// Where the templates are.
const TEMPLATES: &str = "manifests/helm/fairlead/templates";

/// Text, what stands in its place, and how often it is there.
type Change = (&'static str, &'static str, usize);

/// A template.
struct Template {
    /// Below `manifests/`; the template has the file's name.
    source: &'static str,
    /// The values that have to be true, the outer one first.
    only_if: &'static [&'static str],
    changes: &'static [Change],
}

const IMAGE: &str = "image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}";
const NAMED: &str = concat!("image: localhost/fairlead:", env!("CARGO_PKG_VERSION"));
const PULL: Change = ("imagePullPolicy: IfNotPresent", "imagePullPolicy: {{ .Values.image.pullPolicy }}", 1);

/// What the DNS server and the agent of a node share: nothing where there is no agent.
macro_rules! names_mount {
    () => {
        "        - name: names\n          mountPath: /run/fairlead/names\n          readOnly: true\n"
    };
}
macro_rules! names_volume {
    () => {
        "      # Where the node's agent says which names open what, and is asked: a directory that `fairlead install` gives to this \
         group.\n      - name: names\n        hostPath:\n          path: /run/fairlead/names\n          type: \
         DirectoryOrCreate\n"
    };
}
const NAMES_MOUNT: &str = names_mount!();
const NAMES_VOLUME: &str = names_volume!();

const TEMPLATES_OF: [Template; 8] = [
    Template { source: "base/agent-rbac.yaml", only_if: &["agent.enabled"], changes: &[] },
    Template { source: "overlays/cloud/node-status-rbac.yaml", only_if: &["agent.nodeStatus"], changes: &[] },
    Template { source: "base/dns-rbac.yaml", only_if: &["dns.enabled"], changes: &[] },
    Template {
        source: "base/dns-service.yaml",
        only_if: &["dns.enabled", "dns.service.create"],
        changes: &[
            ("  annotations:\n", "  annotations:\n    helm.sh/resource-policy: keep\n", 1),
            (
                "  trafficDistribution: PreferSameNode\n",
                "  {{- if .Values.dns.service.trafficDistribution }}\n  \
                 trafficDistribution: {{ .Values.dns.service.trafficDistribution }}\n  {{- end }}\n  \
                 {{- if .Values.dns.service.clusterIP }}\n  clusterIP: {{ .Values.dns.service.clusterIP | quote }}\n  \
                 {{- end }}\n",
                1,
            ),
        ],
    },
    Template { source: "base/agent-config.yaml", only_if: &["agent.enabled"], changes: &[] },
    Template { source: "base/dns-config.yaml", only_if: &["dns.enabled"], changes: &[] },
    Template {
        source: "base/agent.yaml",
        only_if: &["agent.enabled"],
        changes: &[
            (NAMED, IMAGE, 3),
            (PULL.0, PULL.1, 3),
            // Of the init container and of the one that goes on where it ends.
            (
                "fairlead, install, ",
                "fairlead, install, {{ if .Values.agent.paths.kubeletKubeconfig }}--kubelet-kubeconfig=/host/etc/kubernetes/{{ \
                 .Values.agent.paths.kubeletKubeconfig }}, {{ end }}",
                2,
            ),
            ("containerPort: 10256\n", "containerPort: {{ .Values.agent.healthzPort }}\n", 1),
            ("path: /opt/cni/bin\n", "path: {{ .Values.agent.paths.cniBin }}\n", 1),
            ("path: /etc/cni/net.d\n", "path: {{ .Values.agent.paths.cniConf }}\n", 1),
            ("path: /etc/kubernetes\n", "path: {{ .Values.agent.paths.kubernetes }}\n", 1),
        ],
    },
    Template {
        source: "base/dns.yaml",
        only_if: &["dns.enabled"],
        changes: &[
            (NAMED, IMAGE, 1),
            PULL,
            (
                "--names-dir, /run/fairlead/names, ",
                "{{ if .Values.agent.enabled }}--names-dir, /run/fairlead/names, {{ end }}",
                1,
            ),
            (
                NAMES_MOUNT,
                concat!("        {{- if .Values.agent.enabled }}\n", names_mount!(), "        {{- end }}\n"),
                1,
            ),
            (
                NAMES_VOLUME,
                concat!("      {{- if .Values.agent.enabled }}\n", names_volume!(), "      {{- end }}\n"),
                1,
            ),
        ],
    },
];

/// The chart's templates by their paths.
pub(super) fn templates() -> Result<Vec<(PathBuf, String)>> {
    let manifests = paths::workspace().join("manifests");
    let mut templates = Vec::new();
    for template in &TEMPLATES_OF {
        let text = fs::read_to_string(manifests.join(template.source))
            .with_context(|| format!("can't read manifests/{}", template.source))?;
        let text = template.of(&text).with_context(|| format!("the chart and manifests/{}", template.source))?;
        let name = template.source.rsplit('/').next().unwrap_or(template.source);
        templates.push((paths::workspace().join(TEMPLATES).join(name), text));
    }
    Ok(templates)
}

impl Template {
    fn of(&self, source: &str) -> Result<String> {
        let mut text = match self.source {
            "base/agent-config.yaml" => config(source, "fairlead.yaml", "agent")?,
            "base/dns-config.yaml" => config(source, "dns.yaml", "dns")?,
            "base/agent.yaml" => privileged(&resources(source, "agent")?)?,
            "base/dns.yaml" => resources(source, "dns")?,
            _ => source.to_owned(),
        };
        for (old, new, times) in self.changes {
            let found = text.matches(old).count();
            if found != *times {
                bail!("{old:?} is there {found} times, not {times}");
            }
            text = text.replace(old, new);
        }
        for value in self.only_if.iter().rev() {
            text = format!("{{{{- if .Values.{value} }}}}\n{text}{{{{- end }}}}\n");
        }
        Ok(text)
    }
}

/// What the agent and the DNS server have, and no other container.
const PORTS: &str = "\n        ports:";

/// The block of the resources of the container that has ports: its values in place of it.
fn resources(source: &str, of: &str) -> Result<String> {
    const HEAD: &str = "\n        resources:\n";
    let end = source.find(PORTS).context("nothing behind the resources")?;
    let at = source[..end].rfind(HEAD).context("no resources")? + HEAD.len();
    let values = format!("          {{{{- toYaml .Values.{of}.resources | nindent 10 }}}}");
    Ok(format!("{}{values}{}", &source[..at], &source[end..]))
}

/// The agent's security context, or that of components/privileged.
fn privileged(source: &str) -> Result<String> {
    const HEAD: &str = "\n        securityContext:\n";
    let ports = source.find(PORTS).context("no ports")?;
    let at = source[..ports].rfind(HEAD).context("no security context")? + HEAD.len();
    let end = at + source[at..].find("        resources:").context("nothing behind the security context")?;
    let own = &source[at..end];
    let all = "          privileged: true\n          readOnlyRootFilesystem: true\n";
    Ok(format!(
        "{}          {{{{- if .Values.agent.privileged }}}}\n{all}          {{{{- else }}}}\n{own}          {{{{- end }}}}\n{}",
        &source[..at],
        &source[end..]
    ))
}

/// Settings come from values.
fn config(source: &str, file: &str, of: &str) -> Result<String> {
    let (head, _) = source.split_once("\ndata:\n").context("no data")?;
    // What is said there of comments and defaults is said of a file that this one has not.
    let head = &head[head.find("apiVersion:").context("no object")?..];
    Ok(format!("{head}\ndata:\n  {file}: |\n    {{{{- toYaml .Values.{of}.settings | nindent 4 }}}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_the_chart_does_not_follow_is_an_error() {
        let template = Template {
            source: "base/x.yaml",
            only_if: &["dns.enabled"],
            changes: &[("a: 1", "a: {{ .Values.a }}", 1)],
        };
        let text = template.of("a: 1\n").unwrap();
        assert_eq!(text, "{{- if .Values.dns.enabled }}\na: {{ .Values.a }}\n{{- end }}\n");
        let error = template.of("a: 2\n").unwrap_err().to_string();
        assert!(error.contains("0 times"), "{error}");
    }

    #[test]
    fn the_versions_of_the_chart_are_this_one() {
        let chart = fs::read_to_string(paths::workspace().join("manifests/helm/fairlead/Chart.yaml")).unwrap();
        for line in ["version: ", "appVersion: \""] {
            let line = format!("\n{line}{}", env!("CARGO_PKG_VERSION"));
            assert!(chart.contains(&line), "no {line:?} in {chart}");
        }
    }
}
