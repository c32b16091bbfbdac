//! One file: whole records appended, replaced by a fresh one when it is full.
//!
//! A record that cannot be written completely is cut off again, so that the file stays readable and the batch
//! can be sent once more. Full files are renamed to `name-2006-01-02T15-04-05.000.ext`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{Days, Local, NaiveDateTime, TimeDelta, Utc};

use super::config::RotationConfig;

const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// A file that records are appended to.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    len: u64,
    rotation: Option<RotationConfig>,
    /// Whether there is something to force out.
    dirty: bool,
}

impl Output {
    /// Opens or creates the file; `truncate` empties it first. A file that is rotated is never emptied.
    pub(super) fn open(path: &Path, truncate: bool, rotation: Option<RotationConfig>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        if truncate && rotation.is_none() {
            file.set_len(0)?;
        }
        let len = file.metadata()?.len();
        let output = Output { path: path.to_owned(), file, len, rotation, dirty: false };
        output.prune();
        Ok(output)
    }

    /// Appends one record, to a fresh file if this one would grow too large.
    pub(super) fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let max = self.rotation.as_ref().map(|rotation| rotation.max_megabytes.saturating_mul(1 << 20));
        if max.is_some_and(|max| self.len > 0 && self.len + record.len() as u64 > max) {
            self.rotate()?;
        }
        self.dirty = true;
        if let Err(why) = self.file.write_all(record) {
            // Other writers may have appended since, so nothing but this record's own rest may go.
            let end = self.file.metadata().map_or(self.len, |meta| meta.len());
            if end > self.len && end - self.len < record.len() as u64 {
                let _ = self.file.set_len(self.len);
            }
            return Err(why);
        }
        self.len += record.len() as u64;
        Ok(())
    }

    /// Forces out what was written since the last time.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let mut time = self.now();
        let mut backup = self.backup(time);
        while backup.exists() {
            time += TimeDelta::milliseconds(1);
            backup = self.backup(time);
        }
        fs::rename(&self.path, &backup)?;
        self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.len = self.file.metadata()?.len();
        self.prune();
        Ok(())
    }

    /// Removes old files that are too many or too old. What cannot be removed is logged and tried again.
    fn prune(&self) {
        let Some(rotation) = &self.rotation else { return };
        let oldest = match rotation.max_days {
            0 => None,
            days => self.now().checked_sub_days(Days::new(days.into())),
        };
        let keep = if rotation.max_backups == 0 { usize::MAX } else { rotation.max_backups };
        for (i, (time, path)) in self.backups().into_iter().enumerate() {
            if i < keep && oldest.is_none_or(|oldest| time >= oldest) {
                continue;
            }
            if let Err(why) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), error = %why, "cannot remove an old file");
            }
        }
    }

    /// The renamed files of this one, the youngest first.
    fn backups(&self) -> Vec<(NaiveDateTime, PathBuf)> {
        let (stem, ext) = self.name();
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found: Vec<(NaiveDateTime, PathBuf)> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let name = name.to_str()?;
                let stamp =
                    name.strip_prefix(stem.as_str())?.strip_prefix('-')?.strip_suffix(ext.as_str())?;
                let time = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
                Some((time, entry.path()))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found
    }

    fn backup(&self, time: NaiveDateTime) -> PathBuf {
        let (stem, ext) = self.name();
        self.path.with_file_name(format!("{stem}-{}{ext}", time.format(STAMP)))
    }

    /// The file's name without its extension, and the extension with its dot.
    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let ext = self.path.extension().map(|ext| format!(".{}", text(Some(ext))));
        (text(self.path.file_stem()), ext.unwrap_or_default())
    }

    fn now(&self) -> NaiveDateTime {
        match &self.rotation {
            Some(rotation) if rotation.localtime => Local::now().naive_local(),
            _ => Utc::now().naive_utc(),
        }
    }
}
