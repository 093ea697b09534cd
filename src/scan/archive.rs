//! A static library (`ar` archive) -> the GPU code of its objects. Link-time material: it never runs by itself.
//!
//! Global header `!<arch>\n`; then members, each with 60 bytes: name 16, date 12, uid 6, gid 6, mode 8, size 10
//! (decimal), "`\n"; content is padded to two bytes (ar(5)).

use super::file::{FileScan, Scratch, stream};
use crate::facts::{Content, DeviceCode, FileKind};
use crate::image::read_full;
use crate::limits;
use std::io::{self, Read};

pub(crate) fn scan(size: u64, reader: &mut dyn Read, scratch: &mut Scratch) -> io::Result<FileScan> {
    let mut magic = [0u8; 8];
    read_full(reader, &mut magic)?;
    let mut total: Option<DeviceCode> = None;
    let mut problems = Vec::new();
    let mut at = 8u64;
    for _ in 0..limits::ARCHIVE_MEMBERS_MAX {
        let mut header = [0u8; 60];
        if read_full(reader, &mut header)? < header.len() {
            break;
        }
        at = at.saturating_add(header.len() as u64);
        let digits = header.get(48..58).and_then(|d| std::str::from_utf8(d).ok()).map(str::trim);
        let member_size =
            digits.and_then(|d| d.parse::<u64>().ok()).filter(|s| *s <= size.saturating_sub(at));
        let Some(member_size) = member_size else {
            problems.push(format!("static library is damaged at offset {at:#x}"));
            break;
        };
        let mut member = reader.take(member_size);
        let mut head = [0u8; 4];
        let got = read_full(&mut member, &mut head)?;
        if head == *b"\x7fELF" {
            let mut whole = head.get(..got).unwrap_or_default().chain(&mut member);
            let scanned = stream("", member_size, &mut whole, scratch, FileKind::Elf)?;
            if let Some(code) = scanned.content.and_then(|c| c.device_code) {
                merge(total.get_or_insert_default(), code);
            }
        }
        io::copy(&mut member, &mut io::sink())?;
        io::copy(&mut reader.take(member_size % 2), &mut io::sink())?;
        at = at.saturating_add(member_size).saturating_add(member_size % 2);
    }
    let content = total.map(|code| Content {
        kind: Some(FileKind::Archive),
        device_code: Some(code),
        ..Content::default()
    });
    Ok(FileScan { content, problems, is_elf: false })
}

fn merge(total: &mut DeviceCode, code: DeviceCode) {
    total.containers += code.containers;
    total.embedded_containers += code.embedded_containers;
    total.bytes = total.bytes.saturating_add(code.bytes);
    for row in code.rows {
        let same = |r: &&mut crate::facts::CodeRow| {
            (r.place, &r.section, r.image, &r.toolkit) == (row.place, &row.section, row.image, &row.toolkit)
        };
        match total.rows.iter_mut().find(same) {
            Some(known) => {
                known.count += row.count;
                known.bytes = known.bytes.saturating_add(row.bytes);
            }
            None => total.rows.push(row),
        }
    }
    for shape in code.shapes {
        let same = |s: &&mut crate::facts::Shape| {
            (s.place, &s.section, &s.images) == (shape.place, &shape.section, &shape.images)
        };
        match total.shapes.iter_mut().find(same) {
            Some(known) => known.count += shape.count,
            None => total.shapes.push(shape),
        }
    }
    total.rows.sort_by(|a, b| (a.place, &a.section, a.image).cmp(&(b.place, &b.section, b.image)));
    total.shapes.sort();
}
