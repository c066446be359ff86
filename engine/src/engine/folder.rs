//! Reads sources of modules from a folder, within the bounds of the script that imports them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rhai::EvalAltResult;

use crate::bounds::guard;

/// Bytes to read between two checks of the bounds: a disk may be slow.
const STEP: u64 = 1024 * 1024;

/// Read a module's source; `None`: the folder has no such file.
///
/// The script does not see the system's error, which would contain the path of the folder.
pub fn read(folder: &Path, path: &str) -> Result<Option<String>, Box<EvalAltResult>> {
    let Some((file, size)) = open(folder, path) else {
        return Ok(None);
    };
    guard::allow_module(path, size)?;
    // One byte more than its size shows that the file grows. Without that limit it could grow for ever.
    let mut file = file.take(size.saturating_add(1));
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(file.limit()).unwrap_or(usize::MAX))
        .map_err(|_| format!("the system has no memory for module '{path}' of {size} bytes"))?;
    loop {
        match file.by_ref().take(STEP).read_to_end(&mut bytes) {
            Ok(0) => break,
            Ok(_) if guard::stopped().is_some() => guard::proceed()?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
    if bytes.len() as u64 > size {
        return Err(format!("module '{path}' grew while it was read").into());
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| format!("module '{path}' is not UTF-8").into())
}

/// Open the module's file, and return its size in bytes.
fn open(folder: &Path, path: &str) -> Option<(File, u64)> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None; // each module has one name: threads keep loaded modules by name
    }
    let mut name = PathBuf::from(path).into_os_string();
    name.push(".rhai");
    let file = folder.join(name).canonicalize().ok()?; // follows links: none may lead out
    if !file.starts_with(folder) || !file.metadata().ok()?.is_file() {
        return None;
    }
    // Another file may have taken its place: opening a pipe would wait, and a link would lead out.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY)
        .open(file)
        .ok()?;
    let metadata = opened.metadata().ok()?;
    metadata.is_file().then_some((opened, metadata.len()))
}
