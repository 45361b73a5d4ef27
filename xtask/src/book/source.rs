//! Pages as mdBook gets them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::resolved;

/// What is not in the book is there.
const REPOSITORY: &str = "https://github.com/fairlead/fairlead/blob/main";

/// Where the book's pages are.
const BOOK: &str = "manifests/book/src";

const INCLUDE: &str = "{{#include ";

/// A page, by its path from the root of the work tree.
pub(super) fn page(root: &Path, path: &Path) -> Result<String> {
    let read = |path: &Path| {
        let shown = path.display().to_string();
        fs::read_to_string(root.join(path)).with_context(|| format!("can't read {shown}"))
    };
    rendered(path, &read)
}

fn rendered(path: &Path, read: &impl Fn(&Path) -> Result<String>) -> Result<String> {
    let text = read(path)?;
    let mut done = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(INCLUDE) {
        let (what, after) = after.split_once("}}").context("an include without an end")?;
        let (file, part) = what.split_once(':').with_context(|| format!("{what} names no part"))?;
        let source = resolved(path, file);
        let other = read(&source)?;
        done += &relinked(before, path, path);
        done += &relinked(part_of(&other, part).with_context(|| format!("no {part} in {file}"))?, &source, path);
        rest = after;
    }
    Ok(done + &relinked(rest, path, path))
}

/// What is between the two comments that name a part.
fn part_of<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- ANCHOR: {part} -->"))?;
    Some(rest.split_once(&format!("<!-- ANCHOR_END: {part} -->"))?.0.trim_matches('\n'))
}

/// A text of one file for a page of the book: its links lead where they led.
fn relinked(text: &str, from: &Path, page: &Path) -> String {
    let mut done = String::new();
    // What is fenced is code.
    for (number, piece) in text.split("```").enumerate() {
        if number > 0 {
            done += "```";
        }
        if number % 2 == 1 {
            done += piece;
            continue;
        }
        let mut links = piece.split("](");
        done += links.next().unwrap_or_default();
        for link in links {
            let (target, rest) = link.split_once(')').unwrap_or((link, ""));
            done += &format!("]({}", relink(target, from, page));
            if link.contains(')') {
                done.push(')');
            }
            done += rest;
        }
    }
    done
}

fn relink(link: &str, from: &Path, page: &Path) -> String {
    if link.contains("://") || (link.starts_with('#') && from == page) {
        return link.to_owned();
    }
    let (file, anchor) = link.split_once('#').map_or((link, String::new()), |(file, name)| (file, format!("#{name}")));
    let target = if file.is_empty() { from.to_owned() } else { resolved(from, file) };
    if target.starts_with(BOOK) {
        let up = page
            .parent()
            .and_then(|folder| folder.strip_prefix(BOOK).ok())
            .map_or(0, |folder| folder.components().count());
        let within = target.strip_prefix(BOOK).unwrap_or(&target);
        return format!("{}{}{anchor}", "../".repeat(up), within.display());
    }
    format!("{REPOSITORY}/{}{anchor}", target.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "manifests/book/src/operate/upgrade.md";

    #[test]
    fn links_out_of_the_book_lead_to_the_repository_and_others_stay() {
        let of = |link: &str| relink(link, Path::new(PAGE), Path::new(PAGE));
        let repository = |path: &str| format!("{REPOSITORY}/{path}");
        assert_eq!(of("../../../README.md#remove"), repository("manifests/README.md#remove"));
        assert_eq!(of("../../../../CHANGELOG.md"), repository("CHANGELOG.md"));
        assert_eq!(of("../install/parts.md#dns-alone"), "../install/parts.md#dns-alone");
        assert_eq!(of("monitoring.md"), "../operate/monitoring.md");
        for same in ["#leave", "https://example.com/a.md#b"] {
            assert_eq!(of(same), same);
        }
        // In a table that is taken in from elsewhere.
        let table = |link: &str| relink(link, Path::new("manifests/README.md"), Path::new(PAGE));
        assert_eq!(table("#remove"), repository("manifests/README.md#remove"));
        assert_eq!(table("../SECURITY.md"), repository("SECURITY.md"));
        assert_eq!(table("book/src/operate/monitoring.md"), "../operate/monitoring.md");
    }

    #[test]
    fn parts_of_other_files_are_taken_in_with_their_links() {
        let read = |path: &Path| {
            Ok(match path.to_str().unwrap() {
                PAGE => {
                    "# A\n\n{{#include ../../../README.md:settings}}\n\n```\n[x](y.md)\n```\n[z](z.md)\n".to_owned()
                }
                _ => "<!-- ANCHOR: settings -->\n\n| [a](#below) |\n\n<!-- ANCHOR_END: settings -->\nmore\n".to_owned(),
            })
        };
        let text = rendered(Path::new(PAGE), &read).unwrap();
        let expected = format!(
            "# A\n\n| [a]({REPOSITORY}/manifests/README.md#below) |\n\n```\n[x](y.md)\n```\n[z](../operate/z.md)\n"
        );
        assert_eq!(text, expected);
        let missing = |_: &Path| Ok("{{#include a.md:gone}}".to_owned());
        assert!(rendered(Path::new(PAGE), &missing).is_err());
    }
}
