//! Links of built pages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::resolved;

/// Links that lead nowhere. Pages are named by their path from the first one's folder; what else there is, is asked for.
pub(super) fn broken(pages: &[(PathBuf, String)], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<&str>> =
        pages.iter().map(|(name, text)| (name.as_path(), values(text, "id").collect())).collect();
    let mut found = Vec::new();
    for (name, text) in pages {
        for link in values(text, "href").chain(values(text, "src")) {
            if link.contains(':') || link.is_empty() {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { name.clone() } else { resolved(name, file) };
            let known = anchors.get(target.as_path());
            let leads = match known {
                Some(known) => anchor.is_empty() || known.contains(anchor),
                None => exists(&target),
            };
            if !leads {
                found.push(format!("{}: {link}", name.display()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Values of an attribute.
fn values<'a>(text: &'a str, attribute: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!(" {attribute}=\"");
    let places: Vec<usize> = text.match_indices(&begin).map(|(at, begin)| at + begin.len()).collect();
    places.into_iter().filter_map(|at| Some(text[at..].split_once('"')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_pages_headings_and_files_are_followed() {
        let page = |name: &str, text: &str| (PathBuf::from(name), text.to_owned());
        let pages = [
            page(
                "index.html",
                r##"<a href="operate/a.html#one">x</a><a href="#top" id="top">y</a><link href="x.css">"##,
            ),
            page(
                "operate/a.html",
                r##"<h1 id="one">1</h1><a href="../index.html">x</a><a href="https://x/y.md">z</a>"##,
            ),
        ];
        assert_eq!(broken(&pages, |name| name == Path::new("x.css")), [""; 0]);
        assert_eq!(broken(&pages, |_| false), ["index.html: x.css"]);
        let pages =
            [page("operate/a.html", r##"<a href="../README.html#x">1</a><a href="#two">2</a><img src="a.png">"##)];
        let expected = ["operate/a.html: #two", "operate/a.html: ../README.html#x", "operate/a.html: a.png"];
        assert_eq!(broken(&pages, |_| false), expected);
    }
}
