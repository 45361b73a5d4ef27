//! No circle of imports: what is below does not know what is above.
//!
//! An import counts where the thing that it names is defined, through any number of re-exports; a re-export itself is
//! none. Tests may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path as FilePath;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path of names: of a module from the root of its crate, or of an item in a module.
type Path = Vec<String>;

/// A module: a file, or a `mod` with a body in a file.
#[derive(Debug, Default)]
struct Module {
    /// The file that it stands in, from the folder of sources.
    file: String,
    /// What it defines.
    items: BTreeSet<String>,
    /// What it has under a name of its own, and from where; `*` is not among the names.
    names: BTreeMap<String, Path>,
    /// What it has all of.
    globs: Vec<Path>,
    /// The paths that its code names.
    used: Vec<Path>,
}

/// The modules of a crate.
#[derive(Debug, Default)]
struct Crate(BTreeMap<Path, Module>);

impl Crate {
    fn read(sources: &FilePath) -> Self {
        let mut this = Self::default();
        this.folder(sources, &mut Path::new(), "");
        this
    }

    fn folder(&mut self, folder: &FilePath, at: &mut Path, prefix: &str) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
            if ["tests", "testing", "bin"].contains(&name.as_str()) {
                continue;
            }
            let file = format!("{prefix}{}", entry.file_name().unwrap().to_str().unwrap());
            let is_root = ["lib", "main", "mod"].contains(&name.as_str());
            if !is_root {
                at.push(name);
            }
            if entry.is_dir() {
                self.folder(&entry, at, &format!("{file}/"));
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                self.file(&file, at, &fs::read_to_string(&entry).unwrap());
            }
            if !is_root {
                at.pop();
            }
        }
    }

    fn file(&mut self, file: &str, at: &Path, text: &str) {
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
        self.module(file, at, tokens);
    }

    fn module(&mut self, file: &str, at: &Path, tokens: TokenStream) {
        let module = self.0.entry(at.clone()).or_default();
        file.clone_into(&mut module.file);
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            rest = self.next(file, at, rest);
        }
    }

    /// Takes in the next token, or the item that begins with it, and says what follows.
    fn next<'a>(&mut self, file: &str, at: &Path, tokens: &'a [TokenTree]) -> &'a [TokenTree] {
        if let [TokenTree::Punct(hash), TokenTree::Group(attribute), rest @ ..] = tokens
            && hash.as_char() == '#'
            && attribute.to_string() == "[cfg (test)]"
        {
            return after_item(rest);
        }
        let here = |path: Path| absolute(at, &path);
        let module = self.0.get_mut(at).expect("it was made when its file was opened");
        match tokens {
            [TokenTree::Ident(word), rest @ ..] if word == "use" => {
                let end = rest.iter().position(|token| is(token, ';')).unwrap_or(rest.len());
                for (path, name) in tree(&rest[..end]) {
                    match name.as_str() {
                        "*" => module.globs.push(here(path)),
                        _ => drop(module.names.insert(name, here(path))),
                    }
                }
                &rest[end..]
            }
            [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), rest @ ..]
                if word == "mod" && body.delimiter() == Delimiter::Brace =>
            {
                let mut inner = at.clone();
                inner.push(name.to_string());
                self.module(file, &inner, body.stream());
                rest
            }
            [TokenTree::Ident(word), mark, TokenTree::Group(body), rest @ ..] if word == "stages" && is(mark, '!') => {
                let body: Vec<_> = body.stream().into_iter().collect();
                let names = body.windows(2).filter_map(|pair| match pair {
                    [TokenTree::Ident(word), TokenTree::Ident(name)] if word == "fn" || word == "as" => {
                        Some(name.to_string())
                    }
                    _ => None,
                });
                let made = Module { file: file.to_owned(), items: names.collect(), ..Module::default() };
                let inner = [at.as_slice(), &["stage".to_owned()]].concat();
                let (inline, rest) = (&tokens[2..3], rest);
                self.0.insert(inner, made);
                self.next(file, at, inline);
                rest
            }
            [TokenTree::Ident(word), TokenTree::Ident(_), end, rest @ ..] if word == "mod" && is(end, ';') => rest,
            [TokenTree::Ident(word), TokenTree::Ident(next), ..] if word == "const" && next == "fn" => &tokens[1..],
            [TokenTree::Ident(word), TokenTree::Ident(name), rest @ ..]
                if DEFINES.iter().any(|known| word == known) =>
            {
                module.items.insert(name.to_string());
                rest
            }
            [TokenTree::Ident(_), ..] => {
                let (path, rest) = path(tokens);
                module.used.push(path);
                rest
            }
            [TokenTree::Group(group), rest @ ..] => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let mut tokens = &inner[..];
                while !tokens.is_empty() {
                    tokens = self.next(file, at, tokens);
                }
                rest
            }
            [_, rest @ ..] => rest,
            [] => tokens,
        }
    }

    /// The file where a path's item is defined, if it is one of this crate.
    fn file_of(&self, path: &[String], left: usize) -> Option<&str> {
        let depth = (0..=path.len()).rev().find(|depth| self.0.contains_key(&path[..*depth]))?;
        let module = &self.0[&path[..depth]];
        let Some(name) = path.get(depth) else { return Some(&module.file) };
        if left == 0 || module.items.contains(name) {
            return Some(&module.file);
        }
        let through = |from: &Path| self.file_of(&[from, &path[depth + 1..]].concat(), left - 1);
        if let Some(from) = module.names.get(name) {
            return through(from);
        }
        module.globs.iter().find_map(|from| {
            let at = self.0.get(from)?;
            let has = at.items.contains(name) || at.names.contains_key(name) || !at.globs.is_empty();
            has.then(|| self.file_of(&[from.as_slice(), &path[depth..]].concat(), left - 1)).flatten()
        })
    }

    /// Each file, with the files that it imports.
    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (at, module) in &self.0 {
            let imported = imports.entry(module.file.clone()).or_default();
            for path in &module.used {
                let named = module.names.get(&path[0]).map(|from| [from, &path[1..]].concat());
                let child = [at.as_slice(), path].concat();
                let path = match named {
                    Some(path) => path,
                    None if self.0.contains_key(&child[..=at.len()]) => child,
                    None => match module.globs.iter().find(|from| self.defines(from, &path[0])) {
                        Some(from) => [from, path.as_slice()].concat(),
                        None if path.len() > 1 && ["crate", "self", "super"].contains(&path[0].as_str()) => {
                            absolute(at, path)
                        }
                        None => continue,
                    },
                };
                imported.extend(self.file_of(&path, 8).filter(|file| *file != module.file).map(str::to_owned));
            }
        }
        imports
    }

    fn defines(&self, module: &Path, name: &str) -> bool {
        self.0.get(module).is_some_and(|module| {
            module.items.contains(name)
                || module.names.contains_key(name)
                || module.globs.iter().any(|from| from != &Path::new() && self.defines(from, name))
        })
    }
}

/// The words that give a name to an item.
const DEFINES: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];

fn is(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c)
}

/// What follows the item that these tokens begin with: it ends with a semicolon, or a body in braces.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let ends = |token: &TokenTree| {
        is(token, ';') || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    tokens.iter().position(ends).map_or(&[], |end| &tokens[end + 1..])
}

/// The path that these tokens begin with, and what follows it.
fn path(mut tokens: &[TokenTree]) -> (Path, &[TokenTree]) {
    let mut path = Path::new();
    while let [TokenTree::Ident(name), rest @ ..] = tokens {
        path.push(name.to_string());
        match rest {
            [first, second, more @ ..]
                if is(first, ':') && is(second, ':') && matches!(more, [TokenTree::Ident(_), ..]) =>
            {
                tokens = more;
            }
            _ => return (path, rest),
        }
    }
    (path, tokens)
}

/// What a `use` names: each path, and the name that it gets here.
fn tree(tokens: &[TokenTree]) -> Vec<(Path, String)> {
    let (base, rest) = path(tokens);
    match rest {
        [TokenTree::Ident(word), TokenTree::Ident(name)] if word == "as" => vec![(base, name.to_string())],
        [first, second, TokenTree::Group(list)] if is(first, ':') && is(second, ':') => {
            let list: Vec<_> = list.stream().into_iter().collect();
            let parts = list.split(|token| is(token, ',')).filter(|part| !part.is_empty());
            let all = parts.flat_map(tree);
            all.map(|(path, name)| {
                let own = path == ["self"];
                let name = if own && name == "self" { base.last().cloned().unwrap_or_default() } else { name };
                (if own { base.clone() } else { [base.as_slice(), &path].concat() }, name)
            })
            .collect()
        }
        [first, second, star] if is(first, ':') && is(second, ':') && is(star, '*') => vec![(base, "*".to_owned())],
        _ => {
            let name = base.last().cloned().unwrap_or_default();
            vec![(base, name)]
        }
    }
}

/// A path from the root of the crate; what does not begin there is of another crate, or a child's.
fn absolute(at: &Path, path: &[String]) -> Path {
    let mut base = at.clone();
    let mut names = path;
    match names {
        [first, rest @ ..] if first == "crate" => return rest.to_vec(),
        [first, rest @ ..] if first == "self" => names = rest,
        _ => {}
    }
    while let [first, rest @ ..] = names
        && first == "super"
    {
        base.pop();
        names = rest;
    }
    base.extend_from_slice(names);
    base
}

/// Each file or folder, with those that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Imports between the folders of a crate, and the files beside them; `lib.rs` and `main.rs` name everything.
fn between_folders(files: &Imports) -> Imports {
    let folder = |file: &String| file.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    let mut folders = Imports::new();
    for (file, imported) in files.iter().filter(|(file, _)| !["lib.rs", "main.rs"].contains(&file.as_str())) {
        let of = folder(file);
        let imported = imported.iter().map(folder).filter(|other| *other != of && other != "lib");
        let imported: Vec<_> = imported.collect();
        folders.entry(of).or_default().extend(imported);
    }
    folders
}

/// A circle, if there is one: each imports the next, and the last the first.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn walk(imports: &Imports, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        let last = path.last()?.clone();
        for next in imports.get(&last).into_iter().flatten() {
            if let Some(start) = path.iter().position(|one| one == next) {
                return Some(path[start..].to_vec());
            }
            if !done.contains(next) {
                path.push(next.clone());
                if let Some(found) = walk(imports, path, done) {
                    return Some(found);
                }
                path.pop();
            }
        }
        done.insert(last);
        None
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|first| walk(imports, &mut vec![first.clone()], &mut done))
}

/// The imports between the files of a crate's `src`.
fn of(folder: &str) -> Imports {
    let imports = Crate::read(&fairlead_tree::path(folder).unwrap().join("src")).imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 10, "{folder}: no imports were found");
    imports
}

#[test]
fn folders_import_each_other_in_one_direction() {
    for folder in ["agent", "cni-plugin", "dns", "ebpf/datapath"] {
        assert_eq!(circle(&between_folders(&of(folder))), None, "{folder}: each imports the next");
    }
}

#[test]
fn files_of_the_datapath_and_of_dns_import_each_other_in_one_direction() {
    for folder in ["dns", "ebpf/datapath"] {
        assert_eq!(circle(&of(folder)), None, "{folder}: each imports the next");
    }
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let mut made = Crate::default();
    for (file, at, text) in [
        ("lib.rs", "", "mod a; mod b; pub use b::Deep;"),
        ("a.rs", "a", "use crate::{b::{self, c as d}, Deep}; fn f() { b::c::g(); d::h() } fn k(_: Deep) {}"),
        ("b/mod.rs", "b", "mod c; pub use c::*; pub mod stage { pub use super::c::g; }"),
        (
            "b/c.rs",
            "b c",
            "pub struct Deep; pub fn g() { super::super::a::f() } // crate::no\n#[cfg(test)] mod tests { use crate::b; }",
        ),
        ("e.rs", "e", "call! { crate::b::stage::g() } fn f() { \"crate::a\" }"),
    ] {
        made.file(file, &at.split_whitespace().map(str::to_owned).collect(), text);
    }
    let imports = made.imports();
    let of = |file: &str| imports[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("a.rs"), ["b/c.rs"], "through `self`, a new name and two re-exports");
    assert_eq!(of("b/c.rs"), ["a.rs"], "tests and comments do not count");
    assert_eq!(of("e.rs"), ["b/c.rs"], "in a macro; not in a string");
    assert_eq!(circle(&imports), Some(vec!["a.rs".to_owned(), "b/c.rs".to_owned()]));
    assert_eq!(circle(&between_folders(&imports)), Some(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn a_circle_is_found_through_any_number_of_files() {
    let imports = |edges: &[(&str, &str)]| {
        let mut imports = Imports::new();
        for (from, to) in edges {
            imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        imports
    };
    assert_eq!(circle(&imports(&[("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")])), None);
    let found = circle(&imports(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")]));
    assert_eq!(found, Some(["b", "c", "d"].map(String::from).into()));
}
