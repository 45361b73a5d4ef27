//! As much of Helm's templates as the chart uses: `if` with one value, `else`, `end`, values, `toYaml` with `nindent`,
//! `default`, `quote`. What else stands in a template is an error.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// The objects that `helm template` gives with these values in place of the chart's.
pub(crate) fn render(chart: &Path, values: &Value) -> Vec<Value> {
    let read = |name: &str| fs::read_to_string(chart.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut all: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    merge(&mut all, values);
    let about: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    let scope = json!({"Values": all, "Chart": {"AppVersion": about["appVersion"]}});
    let mut files: Vec<_> = fs::read_dir(chart.join("templates")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let objects =
        files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            super::kustomize::documents(&text_of(&text, &scope))
        });
    objects.collect()
}

fn merge(into: &mut Value, values: &Value) {
    match (into, values) {
        (Value::Object(into), Value::Object(values)) => {
            values.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, values) => *into = values.clone(),
    }
}

/// A template with these values.
fn text_of(template: &str, scope: &Value) -> String {
    let mut out = String::new();
    // Of each `if` that is open, whether its text counts, and whether the text around it does.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let counts = |open: &[(bool, bool)]| open.last().is_none_or(|(own, around)| *own && *around);
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (action, behind) = behind.split_once("}}").unwrap_or_else(|| panic!("an action has no end: {behind}"));
        // Of an action with a dash the space before goes, the end of the line before it too.
        let before = if action.starts_with('-') { before.trim_end() } else { before };
        if counts(&open) {
            out.push_str(before);
        }
        let words: Vec<_> = action.trim_start_matches('-').split_whitespace().collect();
        match words.as_slice() {
            ["if", value] => {
                let around = counts(&open);
                open.push((truth(find(scope, value)), around));
            }
            ["else"] => {
                let last = open.last_mut().expect("else without if");
                last.0 = !last.0;
            }
            ["end"] => drop(open.pop().expect("end without if")),
            ["toYaml", value, "|", "nindent", spaces] if counts(&open) => {
                let text = serde_saphyr::to_string(find(scope, value)).unwrap();
                let margin = format!("\n{}", " ".repeat(spaces.parse().unwrap()));
                out.push_str(&text.trim_end().lines().map(|line| format!("{margin}{line}")).collect::<String>());
            }
            [value, "|", "default", other] if counts(&open) => {
                let value = find(scope, value);
                out.push_str(text(if truth(value) { value } else { find(scope, other) }));
            }
            [value, "|", "quote"] if counts(&open) => out.push_str(&format!("{:?}", text(find(scope, value)))),
            [value] if counts(&open) && find(scope, value).is_number() => {
                out.push_str(&find(scope, value).to_string());
            }
            [value] if counts(&open) => out.push_str(text(find(scope, value))),
            [_] | ["toYaml", ..] | [_, "|", ..] => {}
            other => panic!("{other:?} is not known"),
        }
        rest = behind;
    }
    assert!(open.is_empty(), "an if has no end");
    out + rest
}

fn find<'a>(scope: &'a Value, name: &str) -> &'a Value {
    let path = name.strip_prefix('.').unwrap_or_else(|| panic!("{name} is no value")).replace('.', "/");
    scope.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("the chart has no value {name}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// What Go's templates take for true.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
