//! From words to server blocks.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use super::lex::words;
use super::syntax::{Corefile, Directive, Mistake, Place, ServerBlock, Word, beside};
use crate::files::{Files, find, is_pattern};

/// How many files and snippets are put in. One that imports itself would go on for ever.
const IMPORTS: usize = 1000;
/// How deep braces may be.
const DEPTH: usize = 8;
/// How many words there may be with all imports: snippets that import each other twice double with each.
const WORDS: usize = 1 << 20;

struct Parser<'f> {
    files: &'f dyn Files,
    words: VecDeque<Word>,
    snippets: HashMap<String, Vec<Word>>,
    imports: usize,
    taken: usize,
    empty_imports: Vec<Place>,
    /// For what is missing at the end.
    last: Place,
}

impl Corefile {
    /// Reads a file and what it imports.
    ///
    /// # Errors
    /// A file can't be read, or something in it is no Corefile.
    pub fn read(path: &Path, files: &dyn Files) -> Result<Self, Mistake> {
        read(path, files)
    }

    /// Reads one directive from a text, as a value of another file.
    ///
    /// # Errors
    /// It is none, or more than one.
    pub fn directive(name: &str, text: &str) -> Result<Directive, Mistake> {
        directive(name, text)
    }
}

fn read(path: &Path, files: &dyn Files) -> Result<Corefile, Mistake> {
    let file: Arc<str> = path.to_string_lossy().into();
    let place = Place { file: Arc::clone(&file), line: 1 };
    let text = files
        .text(path)
        .map_err(|error| Mistake { place: place.clone(), text: format!("can't be read: {error}; check the path") })?;
    let mut parser = Parser::new(words(&file, &text, files)?, files, place);
    let mut blocks = Vec::new();
    while let Some(word) = parser.next()? {
        if word.is("import") {
            parser.import(&word)?;
        } else if let Some(name) = snippet_name(&word) {
            parser.snippet(&word, name)?;
        } else {
            blocks.push(parser.block(word)?);
        }
    }
    Ok(Corefile { blocks, empty_imports: parser.empty_imports })
}

fn directive(name: &str, text: &str) -> Result<Directive, Mistake> {
    struct Nothing;
    impl Files for Nothing {
        fn text(&self, _: &Path) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
        fn names(&self, _: &Path) -> std::io::Result<Vec<String>> {
            Ok(Vec::new())
        }
        fn variable(&self, name: &str) -> Option<String> {
            Some(format!("{{${name}}}"))
        }
    }
    let file: Arc<str> = name.into();
    let place = Place { file: Arc::clone(&file), line: 1 };
    let mut parser = Parser::new(words(&file, text, &Nothing)?, &Nothing, place.clone());
    let name = Word { text: name.to_owned(), place, starts_line: true, quoted: false };
    // Its name is on the first line, in front of the text.
    if let Some(first) = parser.words.front_mut() {
        first.starts_line = false;
    }
    let directive = parser.directive(name, 0)?;
    match parser.next()? {
        None => Ok(directive),
        Some(more) => Err(more.wrong(format!("{:?} is too much: write one rule per value", more.text))),
    }
}

/// The name of a snippet that a word begins: `(name)`.
fn snippet_name(word: &Word) -> Option<&str> {
    word.text.strip_prefix('(')?.strip_suffix(')').filter(|_| !word.quoted)
}

impl<'f> Parser<'f> {
    fn new(words: Vec<Word>, files: &'f dyn Files, last: Place) -> Self {
        Self {
            files,
            words: words.into(),
            snippets: HashMap::new(),
            imports: 0,
            taken: 0,
            empty_imports: Vec::new(),
            last,
        }
    }

    fn next(&mut self) -> Result<Option<Word>, Mistake> {
        let word = self.words.pop_front();
        if let Some(word) = &word {
            self.last = word.place.clone();
            self.taken += 1;
            if self.taken > WORDS {
                return Err(word.wrong("the configuration is too long with everything that it imports: shorten it"));
            }
        }
        Ok(word)
    }

    /// The next word, if it stands on the same line.
    fn next_in_line(&mut self) -> Result<Option<Word>, Mistake> {
        if self.words.front().is_some_and(|word| word.starts_line) { Ok(None) } else { self.next() }
    }

    fn unclosed<T>(&self) -> Result<T, Mistake> {
        Err(Mistake { place: self.last.clone(), text: "a brace is never closed: add a line with }".to_owned() })
    }

    /// A server block from its first key on. One without braces goes to the end.
    fn block(&mut self, first: Word) -> Result<ServerBlock, Mistake> {
        let mut keys = Vec::new();
        let mut next = Some(first);
        let mut braces = false;
        while let Some(mut word) = next {
            if word.is("{") {
                braces = true;
                break;
            }
            if word.is("}") {
                return Err(word.wrong("this } closes nothing: remove it"));
            }
            // Keys may be divided by commas, and go on in the next line behind one.
            let more = word.text.ends_with(',');
            word.text = word.text.trim_matches(',').to_owned();
            if !word.text.is_empty() {
                keys.push(word);
            }
            next = if more { self.next()? } else { self.next_in_line()? };
        }
        if keys.is_empty() {
            let text = "a server block has no zone: write one before the {, such as .:53";
            return Err(Mistake { place: self.last.clone(), text: text.to_owned() });
        }
        let directives = if braces { self.lines(1)? } else { self.rest()? };
        Ok(ServerBlock { keys, directives })
    }

    /// Lines to the closing brace.
    fn lines(&mut self, depth: usize) -> Result<Vec<Directive>, Mistake> {
        let mut lines = Vec::new();
        loop {
            let Some(word) = self.next()? else { return self.unclosed() };
            if word.is("}") {
                return Ok(lines);
            }
            self.line(word, depth, &mut lines)?;
        }
    }

    /// Lines to the end.
    fn rest(&mut self) -> Result<Vec<Directive>, Mistake> {
        let mut lines = Vec::new();
        while let Some(word) = self.next()? {
            self.line(word, 1, &mut lines)?;
        }
        Ok(lines)
    }

    fn line(&mut self, word: Word, depth: usize, lines: &mut Vec<Directive>) -> Result<(), Mistake> {
        if word.is("import") {
            return self.import(&word);
        }
        if word.is("{") {
            return Err(word.wrong("a { belongs at the end of a line: put it after the word that it is for"));
        }
        lines.push(self.directive(word, depth)?);
        Ok(())
    }

    fn directive(&mut self, name: Word, depth: usize) -> Result<Directive, Mistake> {
        if name.is("}") {
            return Err(name.wrong("this } closes nothing: remove it"));
        }
        if depth > DEPTH {
            return Err(name.wrong("braces are nested too deep here: no plugin has so many levels"));
        }
        let mut args: Vec<Word> = Vec::new();
        let mut body = Vec::new();
        while self.words.front().is_some_and(|word| !word.is("}")) {
            let Some(word) = self.next_in_line()? else { break };
            if word.is("{") {
                body = self.lines(depth + 1)?;
                break;
            }
            args.push(word);
        }
        Ok(Directive { name, args, body })
    }

    fn snippet(&mut self, word: &Word, name: &str) -> Result<(), Mistake> {
        if !self.next_in_line()?.is_some_and(|word| word.is("{")) {
            return Err(word.wrong(format!("the snippet ({name}) has no body: write {{ after it and }} at its end")));
        }
        let mut body = Vec::new();
        let mut depth = 0;
        loop {
            let Some(word) = self.next()? else { return self.unclosed() };
            match () {
                () if word.is("{") => depth += 1,
                () if word.is("}") && depth == 0 => break,
                () if word.is("}") => depth -= 1,
                () => {}
            }
            body.push(word);
        }
        if self.snippets.insert(name.to_owned(), body).is_some() {
            return Err(word.wrong(format!("there are two snippets ({name}): rename one")));
        }
        Ok(())
    }

    /// Puts a snippet or files in place of an import.
    fn import(&mut self, word: &Word) -> Result<(), Mistake> {
        let Some(what) = self.next_in_line()? else {
            return Err(word.wrong("import names nothing: write a file, a pattern of files or a snippet after it"));
        };
        if let Some(more) = self.next_in_line()? {
            return Err(more.wrong("import takes one file, pattern or snippet: write a line for each"));
        }
        self.imports += 1;
        if self.imports > IMPORTS {
            return Err(word.wrong("there are too many imports: does one import itself?"));
        }
        let added = match self.snippets.get(&what.text) {
            Some(snippet) => snippet.clone(),
            None => self.imported(&what)?,
        };
        // What follows is on another line, whatever was imported.
        if let Some(next) = self.words.front_mut() {
            next.starts_line = true;
        }
        for (at, mut word) in added.into_iter().enumerate().rev() {
            word.starts_line |= at == 0;
            self.words.push_front(word);
        }
        Ok(())
    }

    fn imported(&mut self, what: &Word) -> Result<Vec<Word>, Mistake> {
        let pattern = beside(&what.place.file, &what.text);
        let found = find(self.files, &pattern)
            .map_err(|()| what.wrong(format!("{:?}: only the last part of a path may have wildcards", what.text)))?;
        let unreadable = |path: &Path, error: std::io::Error| {
            what.wrong(format!("can't import {}: {error}; correct the path or remove the line", path.display()))
        };
        let paths = found.map_err(|error| unreadable(&pattern, error))?;
        if paths.is_empty() && is_pattern(&what.text) {
            self.empty_imports.push(what.place.clone());
        }
        let mut added = Vec::new();
        for path in paths {
            let text = self.files.text(&path).map_err(|error| unreadable(&path, error))?;
            let mut more = words(&path.to_string_lossy().into(), &text, self.files)?;
            if let Some(first) = more.first_mut() {
                first.starts_line = true;
            }
            added.extend(more);
        }
        Ok(added)
    }
}
