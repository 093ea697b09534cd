#!/usr/bin/env python3
"""estargz.py - write a layer in the seekable form eStargz. Python 3.8+, standard library only.

  estargz.py IN OUT [--chunk-size N] [--min-chunk-size N] [--prefetch N] [--level N]

IN is a layer: a tar, plain or compressed with gzip, xz or bzip2. OUT is a gzip file of many members that a reader
who knows nothing of the form sees as the same tar with two files more: a landmark, and the table of contents
stargz.index.json as the last. A JSON object on standard output says what a manifest needs: digest and size of
OUT, diff_id (digest of its uncompressed bytes), media type, and the annotations of the descriptor.

  --chunk-size N      bytes of a file in one gzip member (default 4194304)
  --min-chunk-size N  least stored bytes of a member; smaller files share one (innerOffset; default 0: each its own)
  --prefetch N        the first N entries are the prioritized ones: .prefetch.landmark stands behind them
                      (default 0: .no.prefetch.landmark at the front)
  --level N           gzip level (default 6)

Written from https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md: a gzip member begins at the
start, at the content of each regular file that is not empty, at each chunk of a large one, at the tar header of the
table, and at the footer of 51 bytes that says where the table is. Member headers of the tar are kept byte for byte; sparse
files are written out.

LIBRARY: convert(tar_bytes, chunk_size=..., min_chunk_size=..., prefetch=..., level=..., edit=None) -> (blob, info). `edit`
gets the table (a dict) before it is written and may change it or return bytes in its place: for tests of wrong tables.
"""
import argparse
import base64
import hashlib
import io
import json
import re
import tarfile
import time
import zlib

TOC = "stargz.index.json"
DIGEST, SIZE = "containerd.io/snapshot/stargz/toc.digest", "io.containers.estargz.uncompressed-size"
MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
KINDS = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink", tarfile.CHRTYPE: "char",
         tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def footer(offset):
    """An empty gzip member whose extra field says where the table begins."""
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % offset
    return b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(extra).to_bytes(2, "little") + extra + b"\x01\0\0\xff\xff" + bytes(8)


class Stream:
    """Gzip members, one after the other."""

    def __init__(self, level):
        self.out, self.level, self.gz, self.plain, self.plain_hash = bytearray(), level, None, 0, hashlib.sha256()

    def write(self, data):
        if data:
            if self.gz is None:
                self.gz = zlib.compressobj(self.level, zlib.DEFLATED, 31)
            self.out += self.gz.compress(data)
            self.plain += len(data)
            self.plain_hash.update(data)

    def flush(self):
        if self.gz is not None:
            self.out += self.gz.flush(zlib.Z_SYNC_FLUSH)

    def close(self):
        if self.gz is not None:
            self.out += self.gz.flush()
            self.gz = None


def landmark(name):
    info = tarfile.TarInfo(name)
    info.size = 1
    return info, info.tobuf(tarfile.GNU_FORMAT), b"\x0f"


def members(data, prefetch):
    """(TarInfo, bytes of its headers, content) of every entry, the landmark among them."""
    place = 0
    if not prefetch:
        yield landmark(".no.prefetch.landmark")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape", encoding="utf-8") as tf:
        for m in tf:
            if re.sub(r"^(\./|/)+", "", m.name) == TOC:
                continue
            head, content = data[m.offset:m.offset_data], b""
            if m.issparse():
                content = tf.extractfile(m).read()
                plain = tarfile.TarInfo(m.name)
                plain.size, plain.mode, plain.mtime, plain.uid, plain.gid = len(content), m.mode, int(m.mtime), m.uid, m.gid
                head = plain.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            elif m.isreg():
                content = data[m.offset_data:m.offset_data + m.size]
            yield m, head, content
            place += 1
            if place == prefetch:
                yield landmark(".prefetch.landmark")


def named(text):
    """As JSON can hold it: bytes that are no UTF-8 are replaced one by one."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def entry(m):
    e = {"name": named(m.name) + ("/" if m.isdir() else ""), "type": KINDS.get(m.type, "reg"),
         "modtime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(m.mtime)), "mode": m.mode}
    e.update({k: v for k, v in (("uid", m.uid), ("gid", m.gid), ("userName", named(m.uname)), ("groupName", named(m.gname))) if v})
    if m.issym() or m.islnk():
        e["linkName"] = named(m.linkname)
    if m.ischr() or m.isblk():
        e.update({k: v for k, v in (("devMajor", m.devmajor), ("devMinor", m.devminor)) if v})
    xattrs = {k[13:]: base64.b64encode(v.encode("utf-8", "surrogateescape")).decode() for k, v in m.pax_headers.items() if k.startswith("SCHILY.xattr.")}
    if xattrs:
        e["xattrs"] = xattrs
    return e


def convert(data, chunk_size=4 << 20, min_chunk_size=0, prefetch=0, level=6, edit=None):
    out, entries, begun, begun_plain = Stream(level), [], 0, 0
    for m, head, content in members(data, prefetch):
        out.write(head)
        e = entry(m)
        if e["type"] == "reg":
            if content:
                e["size"] = len(content)
            e["digest"] = sha256(content)
        first, at = e, 0
        while at < len(content):
            part = content[at:at + chunk_size]
            out.flush()
            if len(out.out) - begun >= min_chunk_size:
                out.close()
                begun, begun_plain = len(out.out), out.plain
            elif out.plain > begun_plain:
                e["innerOffset"] = out.plain - begun_plain
            # Zero is left out, as the published writer does.
            e.update({k: v for k, v in (("offset", begun), ("chunkOffset", at), ("chunkSize", len(part) if len(part) == chunk_size else 0)) if v})
            e["chunkDigest"] = sha256(part)
            entries.append(e)
            out.write(part)
            at += len(part)
            e = {"name": first["name"], "type": "chunk"}
        if not content:
            entries.append(e)
        out.write(bytes(-len(content) % 512))
    out.close()
    table = {"version": 1, "entries": entries}
    edited = edit(table) if edit else None
    toc = edited if isinstance(edited, bytes) else json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    at = len(out.out)
    info = tarfile.TarInfo(TOC)
    info.size = len(toc)
    for part in (info.tobuf(tarfile.GNU_FORMAT), toc, bytes(-len(toc) % 512 + 1024)):
        out.write(part)
    out.close()
    out.out += footer(at)
    blob = bytes(out.out)
    return blob, {"digest": sha256(blob), "size": len(blob), "diff_id": "sha256:" + out.plain_hash.hexdigest(), "mediaType": MEDIA_TYPE,
                  "annotations": {DIGEST: sha256(toc), SIZE: str(out.plain)}}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("input", metavar="IN")
    ap.add_argument("output", metavar="OUT")
    ap.add_argument("--chunk-size", type=int, default=4 << 20)
    ap.add_argument("--min-chunk-size", type=int, default=0)
    ap.add_argument("--prefetch", type=int, default=0)
    ap.add_argument("--level", type=int, default=6)
    a = ap.parse_args()
    with open(a.input, "rb") as f:
        data = f.read()
    for magic, unpack in ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ", "lzma"), (b"BZh", "bz2")):
        if data.startswith(magic):
            data = __import__(unpack).decompress(data)
    blob, info = convert(data, a.chunk_size, a.min_chunk_size, a.prefetch, a.level)
    with open(a.output, "wb") as f:
        f.write(blob)
    print(json.dumps(info, indent=1))


if __name__ == "__main__":
    main()
