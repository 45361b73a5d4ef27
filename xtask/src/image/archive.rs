//! Tar archives whose bytes depend on nothing but what is in them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// Files by path, which is also the order they are written in. Folders above them are made where an archive wants them.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, File>);

#[derive(Debug)]
struct File {
    mode: u32,
    data: Vec<u8>,
}

impl Tree {
    /// Adds a file, at a path without a leading slash.
    pub(super) fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) -> &mut Self {
        self.0.insert(path.to_owned(), File { mode, data });
        self
    }

    /// The archive: folders before what is in them, everything root's and from 1970.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        let mut folders: Vec<&str> = Vec::new();
        for (path, file) in &self.0 {
            for folder in parents(path) {
                // In the order of paths, a folder's content is one run of entries or it was seen before.
                if !folders.contains(&folder) {
                    folders.push(folder);
                    append(&mut builder, &format!("{folder}/"), EntryType::Directory, 0o755, &[])?;
                }
            }
            append(&mut builder, path, EntryType::Regular, file.mode, &file.data)?;
        }
        builder.into_inner().context("can't end an archive")
    }
}

/// The folders above a path, the outermost first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

fn append(builder: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len().try_into()?);
    builder.append_data(&mut header, path, data).with_context(|| format!("can't archive {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_and_folders_come_first() {
        let mut tree = Tree::default();
        tree.file("usr/bin/b", 0o755, b"bb".to_vec()).file("etc/x", 0o644, Vec::new());
        tree.file("usr/bin/a", 0o755, b"a".to_vec());
        let bytes = tree.tar().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, u32, u64, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let (header, path) = (entry.header(), entry.path().unwrap());
                (
                    path.display().to_string(),
                    header.mode().unwrap(),
                    header.size().unwrap(),
                    header.mtime().unwrap() + header.uid().unwrap() + header.gid().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("etc/", 0o755, 0),
            ("etc/x", 0o644, 0),
            ("usr/", 0o755, 0),
            ("usr/bin/", 0o755, 0),
            ("usr/bin/a", 0o755, 1),
            ("usr/bin/b", 0o755, 2),
        ];
        assert_eq!(entries, expected.map(|(path, mode, size)| (path.to_owned(), mode, size, 0)));
    }

    #[test]
    fn the_order_of_adding_changes_no_byte() {
        let (mut one, mut other) = (Tree::default(), Tree::default());
        one.file("a", 0o644, b"1".to_vec()).file("b/c", 0o755, b"2".to_vec());
        other.file("b/c", 0o755, b"2".to_vec()).file("a", 0o644, b"1".to_vec());
        assert_eq!(one.tar().unwrap(), other.tar().unwrap());
    }
}
