//! Image archives, as `docker save` writes them: a configuration, a list, layers. No registry is asked for anything.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// An image to be: its files are in layers that several images may share.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The names it has.
    pub tags: Vec<String>,
    /// Layers from the lowest to the highest.
    pub layers: Vec<PathBuf>,
    /// What runs in it, when nobody says otherwise.
    pub entrypoint: Vec<String>,
    /// The arguments of that, when nobody says otherwise.
    pub command: Vec<String>,
}

/// The hash of a layer's bytes.
fn digest(file: &Path) -> Result<String> {
    struct Hasher(Sha256);
    impl Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Sha256::new());
    io::copy(&mut File::open(file).with_context(|| format!("no layer {}", file.display()))?, &mut hasher)?;
    Ok(hex(&hasher.0.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The configuration of an image whose layers have these hashes.
pub(crate) fn config(image: &Image, digests: &[String]) -> Result<Vec<u8>> {
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": digests.iter().map(|d| format!("sha256:{d}")).collect::<Vec<_>>()},
    });
    Ok(serde_json::to_vec(&config)?)
}

/// Writes images into one archive; it appears whole or not at all.
pub(crate) fn write(target: &Path, images: &[Image]) -> Result<()> {
    let partial = target.with_extension("partial");
    let mut archive = Builder::new(BufWriter::new(File::create(&partial)?));
    let mut list = Vec::new();
    let mut done: Vec<String> = Vec::new();
    for image in images {
        let digests = image.layers.iter().map(|layer| digest(layer)).collect::<Result<Vec<_>>>()?;
        for (layer, digest) in image.layers.iter().zip(&digests) {
            if !done.contains(digest) {
                archive.append_path_with_name(layer, format!("{digest}.tar"))?;
                done.push(digest.clone());
            }
        }
        let config = config(image, &digests)?;
        let name = format!("{}.json", sha256(&config));
        append(&mut archive, &name, &config, 0o644)?;
        let layers: Vec<String> = digests.iter().map(|digest| format!("{digest}.tar")).collect();
        list.push(json!({"Config": name, "RepoTags": image.tags, "Layers": layers}));
    }
    append(&mut archive, "manifest.json", &serde_json::to_vec(&list)?, 0o644)?;
    archive.into_inner()?.flush()?;
    fs::rename(&partial, target).with_context(|| format!("can't write {}", target.display()))
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Adds a file to a layer or an archive. Time and owner are the same in every build.
pub(crate) fn append<W: Write>(archive: &mut Builder<W>, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mode(mode);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// Writes a layer of programs: what each is called in the image, and its file here.
pub(crate) fn layer(target: &Path, programs: &[(&str, &Path)]) -> Result<()> {
    let read = |file: &Path| fs::read(file).with_context(|| format!("no {}", file.display()));
    let files: Vec<_> =
        programs.iter().map(|(name, file)| Ok(((*name).to_owned(), read(file)?))).collect::<Result<_>>()?;
    layer_of(target, &files)
}

/// Writes a layer of files by their names in the image.
pub(crate) fn layer_of(target: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let partial = target.with_extension("partial");
    let mut archive = Builder::new(BufWriter::new(File::create(&partial)?));
    for (name, bytes) in files {
        append(&mut archive, name.trim_start_matches('/'), bytes, 0o755)?;
    }
    archive.into_inner()?.flush()?;
    fs::rename(&partial, target).with_context(|| format!("can't write {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_share_their_layers() {
        let directory = std::env::temp_dir().join(format!("fairlead-archive-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (program, one) = (directory.join("program"), directory.join("one.tar"));
        fs::write(&program, "text").unwrap();
        layer(&one, &[("/bin/program", &program)]).unwrap();
        let image = |tag: &str, entrypoint: &str| Image {
            tags: vec![tag.to_owned()],
            layers: vec![one.clone()],
            entrypoint: vec![entrypoint.to_owned()],
            command: Vec::new(),
        };
        let target = directory.join("images.tar");
        write(&target, &[image("a:1", "/bin/program"), image("b:1", "/bin/sh")]).unwrap();
        let mut names: Vec<String> = tar::Archive::new(File::open(&target).unwrap())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().extension().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["json", "json", "json", "tar"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
