//! Blocks of the state log, reduced to the last write of every `evm` key (docs/contracts/digest.md 4.5, 4.7, 4.8).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::overlay::{Logs, Overlay};
use crate::rows::{BOUNDARY_MARKER, RawKind, VERSION_MARKER, raw_kind};
use crate::wire::{Field, Pair, Reader, named_changeset};
use crate::writes::{Limits, Writes, relieve};

const MAGIC: &[u8] = b"SEIWL\x01";
const PAYLOAD_VERSION: u8 = 1;

/// Which container the log's files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFormat {
    /// checksummed records, one a block
    StateWal,
    /// memiavl's container, of older generations
    Changelog,
}

/// A log file. A sealed one promises its first and last block; an unsealed one ends at its first bad record.
#[derive(Clone, Debug)]
pub struct BlockFile {
    pub path: PathBuf,
    pub sealed: bool,
    pub sequence: u64,
    pub first: u64,
    pub last: u64,
}

/// Last writes by shape of key, and what became of the two marker rows.
#[derive(Default)]
pub struct Changes {
    pub nonce: Overlay,
    pub codehash: Overlay,
    pub code: Overlay,
    pub storage: Overlay,
    pub misc: Overlay,
    /// other modules, by inner key: they take no part in the digest, but their rows are counted
    pub others: BTreeMap<Vec<u8>, Overlay>,
    /// marker key => (height, value or None when deleted)
    pub markers: BTreeMap<Vec<u8>, (u32, Option<Vec<u8>>)>,
    pub version: u64,
}

#[derive(Default)]
struct Collected {
    nonce: Writes,
    codehash: Writes,
    code: Writes,
    storage: Writes,
    misc: Writes,
    others: BTreeMap<Vec<u8>, Writes>,
    markers: BTreeMap<Vec<u8>, (u32, Option<Vec<u8>>)>,
    waiting: usize,
}

impl Collected {
    fn relieve(&mut self, logs: &Logs, limits: Limits<'_>) -> Result<()> {
        let mut lists = vec![&mut self.nonce, &mut self.codehash, &mut self.code, &mut self.storage, &mut self.misc];
        lists.extend(self.others.values_mut());
        relieve(&mut lists, logs, limits)?;
        self.waiting = lists.iter().map(|list| list.waiting()).sum();
        Ok(())
    }
}

impl Changes {
    /// Apply blocks after+1 ..= upto; every one of them must be there.
    pub fn replay(
        files: &[BlockFile],
        format: BlockFormat,
        (after, upto): (u64, u64),
        limits: Limits<'_>,
    ) -> Result<Self> {
        let mut logs = Logs::default();
        let mut collected = Collected::default();
        let mut current = after;
        for file in files {
            if format == BlockFormat::StateWal && (file.last <= after || file.first > upto) {
                continue;
            }
            let number = if file.sealed { logs.map(&file.path)? } else { logs.read(&file.path)? };
            let blocks = match format {
                BlockFormat::StateWal => state_records(file, logs.file(number))?,
                BlockFormat::Changelog => changelog_entries(file, logs.file(number))?,
            };
            for block in blocks {
                if block.number <= after || block.number > upto {
                    continue;
                }
                if block.number != current + 1 {
                    return Err(Error::store(format!(
                        "readonly: replay block {0}: apply v{0}: flatkv: apply version {0} must be committed version {current} plus one",
                        block.number
                    )));
                }
                current = block.number;
                apply(&logs, number, &block, format, (&mut collected, limits))?;
            }
        }
        let logs = Arc::new(logs);
        let settle = |writes: Writes| writes.settle(Arc::clone(&logs), limits);
        Ok(Self {
            nonce: settle(collected.nonce)?,
            codehash: settle(collected.codehash)?,
            code: settle(collected.code)?,
            storage: settle(collected.storage)?,
            misc: settle(collected.misc)?,
            others: collected
                .others
                .into_iter()
                .map(|(module, writes)| Ok((module, settle(writes)?)))
                .collect::<Result<_>>()?,
            markers: collected.markers,
            version: current,
        })
    }

    pub fn len(&self) -> usize {
        [&self.nonce, &self.codehash, &self.code, &self.storage, &self.misc].iter().map(|overlay| overlay.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A block: its number, and where its payload stands in the file.
struct Block {
    number: u64,
    at: usize,
    length: usize,
}

fn state_records(file: &BlockFile, data: &[u8]) -> Result<Vec<Block>> {
    let iterate = |what: String| {
        Error::store(format!(
            "readonly: WAL iterate: failed to read WAL file (sequence {}) during iteration: {what}",
            file.sequence
        ))
    };
    if data.len() >= MAGIC.len() {
        if !data.starts_with(&MAGIC[..5]) {
            return Err(iterate(format!("WAL file {} has an invalid magic prefix", file.path.display())));
        }
        if data[5] != MAGIC[5] {
            return Err(iterate(format!(
                "WAL file {} has unsupported format version {}",
                file.path.display(),
                data[5]
            )));
        }
    }
    let mut found: Vec<Block> = Vec::new();
    let mut damage = None;
    let mut at = MAGIC.len();
    while at < data.len() {
        match state_record(data, at) {
            Ok((block, next)) => {
                found.push(block);
                at = next;
            }
            Err(what) => {
                damage = Some(format!("{what} at offset {at}"));
                break;
            }
        }
    }
    if !file.sealed {
        return Ok(found);
    }
    if let Some(what) = damage {
        return Err(iterate(format!("sealed WAL file {} is corrupt: {what}", file.path.display())));
    }
    let promise = format!(
        "readonly: WAL iterate: WAL file (sequence {}) is corrupt: name promises indices [{}, {}] but ",
        file.sequence, file.first, file.last
    );
    match (found.first(), found.last()) {
        (Some(first), Some(last)) if (first.number, last.number) == (file.first, file.last) => Ok(found),
        (Some(first), Some(last)) => {
            Err(Error::store(format!("{promise}content holds [{}, {}]", first.number, last.number)))
        }
        _ => Err(Error::store(format!("{promise}no intact records were read"))),
    }
}

fn state_record(data: &[u8], at: usize) -> std::result::Result<(Block, usize), &'static str> {
    let mut reader = Reader::new(&data[at..]);
    let number = reader.uvarint().ok_or("torn record index prefix")?;
    let length = reader.uvarint().ok_or("torn record length prefix")?;
    let from = at + reader.position();
    let payload = reader.take(length).ok_or("truncated record payload or checksum")?;
    let stored = reader.take(4).ok_or("truncated record payload or checksum")?;
    let end = from + payload.len();
    if !cfg!(fuzzing) && crc32fast::hash(&data[at..end]).to_be_bytes() != *stored {
        return Err("record checksum mismatch");
    }
    Ok((Block { number, at: from, length: payload.len() }, end + 4))
}

fn changelog_entries(file: &BlockFile, data: &[u8]) -> Result<Vec<Block>> {
    let mut reader = Reader::new(data);
    let mut found = Vec::new();
    while !reader.is_empty() {
        let start = reader.position();
        let Some(entry) = reader.bytes() else {
            if file.sealed {
                return Err(Error::file(&file.path, format!("log corrupt: entry at offset {start} is cut")));
            }
            break;
        };
        let at = reader.position() - entry.len();
        let mut fields = Reader::new(entry);
        let mut number = 0;
        while !fields.is_empty() {
            match fields.field() {
                Some((1, Field::Varint(version))) => number = version,
                Some(_) => {}
                None => return Err(Error::file(&file.path, format!("entry at offset {start} is malformed"))),
            }
        }
        found.push(Block { number, at, length: entry.len() });
    }
    Ok(found)
}

fn apply(
    logs: &Logs,
    file: u32,
    block: &Block,
    format: BlockFormat,
    (into, limits): (&mut Collected, Limits<'_>),
) -> Result<()> {
    let number = block.number;
    let payload = &logs.file(file)[block.at..block.at + block.length];
    let broken = |what: String| {
        Error::store(format!("readonly: WAL iterate: failed to deserialize record at index {number}: {what}"))
    };
    let height = u32::try_from(number).map_err(|_| broken(format!("block {number} is beyond 32 bits")))?;
    let refused = |what: &str| Error::store(format!("readonly: replay block {number}: apply v{number}: {what}"));
    let mut each = |base: usize, set: &[u8]| {
        named_changeset(set, &mut |module, pair| {
            write(logs, file, base, (module, pair), height, into).map_err(refused)?;
            into.waiting += 1;
            if into.waiting >= limits.held { into.relieve(logs, limits) } else { Ok(()) }
        })
    };
    match format {
        BlockFormat::StateWal => {
            let mut reader = Reader::new(payload);
            match reader.byte() {
                None => return Err(broken("empty changeset payload: missing version byte".into())),
                Some(PAYLOAD_VERSION) => {}
                Some(other) => return Err(broken(format!("unsupported changeset format version {other}"))),
            }
            while !reader.is_empty() {
                let length = reader.uvarint().ok_or_else(|| broken("corrupt changeset length prefix".into()))?;
                let have = reader.remaining();
                let set = reader
                    .take(length)
                    .ok_or_else(|| broken(format!("changeset payload truncated: need {length} bytes, have {have}")))?;
                each(block.at + reader.position() - set.len(), set)?;
            }
        }
        BlockFormat::Changelog => {
            let mut reader = Reader::new(payload);
            while !reader.is_empty() {
                match reader.field() {
                    Some((2, Field::Bytes(set, at))) => each(block.at + at, set)?,
                    Some(_) => {}
                    None => return Err(broken("malformed entry".into())),
                }
            }
        }
    }
    Ok(())
}

fn write(
    logs: &Logs,
    file: u32,
    base: usize,
    (module, pair): (&[u8], Pair),
    height: u32,
    into: &mut Collected,
) -> std::result::Result<(), &'static str> {
    let key_at = (base + pair.key.0, pair.key.1);
    let value_at = (!pair.delete).then_some((base + pair.value.0, pair.value.1));
    let data = logs.file(file);
    let key = &data[key_at.0..key_at.0 + key_at.1];
    if module.is_empty() {
        return Err("flatkv: empty module name in changeset");
    }
    if module != b"evm" {
        let physical = [module, b"/", key].concat();
        if physical == VERSION_MARKER || physical == BOUNDARY_MARKER {
            let value = value_at.map(|(at, length)| data[at..at + length].to_vec());
            into.markers.insert(physical, (height, value));
        } else {
            let change = logs.change(file, key_at, value_at, height);
            match into.others.get_mut(module) {
                Some(writes) => writes.push(change),
                None => into.others.entry(module.to_vec()).or_default().push(change),
            }
        }
        return Ok(());
    }
    let length = value_at.map(|(_, length)| length);
    let list = match raw_kind(key) {
        RawKind::Empty => return Err("flatkv: empty key in changeset"),
        RawKind::Nonce => {
            if length.is_some_and(|length| length != 8) {
                return Err(
                    "failed to gather account updates: invalid nonce value: invalid nonce value length, expected 8",
                );
            }
            &mut into.nonce
        }
        RawKind::Codehash => {
            if length.is_some_and(|length| length != 32) {
                return Err(
                    "failed to gather account updates: invalid codehash value: invalid codehash value length, expected 32",
                );
            }
            &mut into.codehash
        }
        RawKind::Storage => {
            if length.is_some_and(|length| length != 32) {
                return Err(
                    "failed to process storage changes: failed to parse storage value: invalid storage value length, expected 32",
                );
            }
            &mut into.storage
        }
        RawKind::Code => &mut into.code,
        RawKind::Misc => &mut into.misc,
    };
    list.push(logs.change(file, key_at, value_at, height));
    Ok(())
}
