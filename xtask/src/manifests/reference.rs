//! The book's page about JSON: the structures that the agent answers with, and what their documentation says of each field.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::paths;

/// Where the structures are, and which page they become.
const SOURCES: [&str; 8] = [
    "agent/src/admin/views/status.rs",
    "agent/src/admin/views/service.rs",
    "agent/src/admin/views/rules.rs",
    "agent/src/admin/views/audit.rs",
    "agent/src/admin/views/what_if.rs",
    "agent/src/admin/views.rs",
    "agent/src/state/drops.rs",
    "agent/src/install/mod.rs",
];
const PAGE: &str = "manifests/book/src/reference/json.md";

/// What of them is answered with, in the page's order: the structure, the word in `kind`, the command.
const KINDS: [(&str, &str, &str); 9] = [
    ("StatusView", "Status", "fairlead status"),
    ("ServiceView", "Services", "fairlead service list"),
    ("ServiceExplanation", "ServiceExplanations", "fairlead service explain"),
    ("PolicyExplanation", "PolicyExplanation", "fairlead policy explain"),
    ("PolicyRuleView", "Policies", "fairlead policy list"),
    ("PolicyAudit", "PolicyAudit", "fairlead policy audit"),
    ("PolicyWhatIf", "PolicyWhatIf", "fairlead policy what-if"),
    ("DropsView", "Drops", "fairlead drops"),
    ("Step", "Steps", "fairlead install, uninstall"),
];

const HEAD: &str = "\
# JSON

<!-- `cargo xtask manifests` makes this page from the code: change the documentation of the fields there. -->

`-o json` and `-o yaml` print one object: `api_version`, which is `fairlead/v1`; `kind`, which says what it is; and the fields
below. Lists are in `items`. The version changes when a field goes or changes its meaning; new fields may come at any time.
`drops --follow` prints one object a line, of kind `Drop`; `--watch` prints one object after the other.
`doctor` (kind `Findings`) prints `findings` (`severity`: `blocks` or `hinders`, `what`, `why`, `remedy`), `without` (`what`,
`holds`) and `unseen` (`what`, `reason`); `version` (kind `Version`) prints `version`, `commit`, `api`, `agent` (`version`, `api`),
`agent_unknown` and `kernel` (`release`, `features` with `name` and `present`); `log-level` (kind `LogLevel`) prints `filter`.

";

/// A structure.
struct Structure {
    name: String,
    about: String,
    /// Name, type, documentation.
    fields: Vec<[String; 3]>,
}

/// The page with its path.
pub(super) fn page() -> Result<(PathBuf, String)> {
    let mut all = Vec::new();
    for source in SOURCES {
        let text =
            fs::read_to_string(paths::workspace().join(source)).with_context(|| format!("can't read {source}"))?;
        all.extend(structures(&text));
    }
    let mut text = HEAD.to_owned();
    let mut told: Vec<String> = Vec::new();
    for (name, kind, command) in KINDS {
        text += &format!("## {kind}\n\n`{command}`. ");
        tell(name, &all, &mut told, &mut text)?;
    }
    Ok((paths::workspace().join(PAGE), text.trim_end().to_owned() + "\n"))
}

/// A structure's table, and those of the structures in it.
fn tell(name: &str, all: &[Structure], told: &mut Vec<String>, text: &mut String) -> Result<()> {
    let Some(structure) = all.iter().find(|structure| structure.name == name) else {
        bail!("{name} is in none of the files that the page about JSON is made of");
    };
    told.push(name.to_owned());
    *text += &format!("{}\n\n| field | type | what |\n|---|---|---|\n", structure.about);
    for [field, kind, about] in &structure.fields {
        *text += &format!("| `{field}` | {} | {about} |\n", shown(kind));
    }
    *text += "\n";
    for [_, kind, _] in &structure.fields {
        let inner = kind.trim_start_matches("Vec<").trim_start_matches("Option<").trim_end_matches('>');
        if all.iter().any(|structure| structure.name == inner) && !told.iter().any(|told| told == inner) {
            *text += &format!("### {inner}\n\n");
            tell(inner, all, told, text)?;
        }
    }
    Ok(())
}

/// A type as JSON has it.
fn shown(kind: &str) -> String {
    if let Some(inner) = kind.strip_prefix("Vec<").and_then(|rest| rest.strip_suffix('>')) {
        return format!("list of {}", shown(inner));
    }
    if let Some(inner) = kind.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>')) {
        return format!("{} or null", shown(inner));
    }
    match kind {
        "String" | "IpAddr" | "SocketAddr" | "Verdict" | "PolicyVerdict" => "string".to_owned(),
        "bool" => "boolean".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "number".to_owned(),
        other => format!("[{other}](#{})", other.to_lowercase()),
    }
}

/// The public structures of a source. Their fields are public and documented, as everything here is.
fn structures(source: &str) -> Vec<Structure> {
    let mut found: Vec<Structure> = Vec::new();
    let mut about = String::new();
    let mut open = false;
    for line in source.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            about = format!("{about} {}", comment.trim()).trim().to_owned();
        } else if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            found.push(Structure { name: name.to_owned(), about: std::mem::take(&mut about), fields: Vec::new() });
            open = true;
        } else if let Some((name, kind)) =
            line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")).filter(|_| open)
        {
            let field = [name.to_owned(), kind.trim_end_matches(',').to_owned(), plain(&std::mem::take(&mut about))];
            found.last_mut().into_iter().for_each(|structure| structure.fields.push(field.clone()));
        } else if !line.starts_with('#') {
            about.clear();
            open &= line != "}";
        }
    }
    for structure in &mut found {
        structure.about = plain(&structure.about);
    }
    found
}

/// Documentation without links into the code, and with `|` as a cell of a table can have it.
fn plain(about: &str) -> String {
    about.replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_types_and_documentation() {
        let source = "/// How it is.\n#[derive(Debug)]\npub struct View {\n    /// Its name, of [`Name`]\n    /// or none.\n    pub \
                      name: Option<String>,\n    #[serde(default)]\n    /// Parts.\n    pub parts: Vec<Part>,\n}\n\nimpl View {\n    \
                      pub fn x() {}\n}\n";
        let found = structures(source);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].about.as_str()), ("View", "How it is."));
        assert_eq!(found[0].fields[0], ["name", "Option<String>", "Its name, of `Name` or none."]);
        assert_eq!(shown(&found[0].fields[0][1]), "string or null");
        assert_eq!(shown(&found[0].fields[1][1]), "list of [Part](#part)");
    }

    #[test]
    fn every_answer_has_a_section() {
        let (_, text) = page().unwrap();
        for (_, kind, _) in KINDS {
            assert!(text.contains(&format!("## {kind}\n")), "{kind}");
        }
        assert!(
            text.contains("| `free` | number |") && !text.contains("(#vec") && !text.contains("BTreeMap"),
            "{text}"
        );
    }
}
