// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-blk (VIRTIO 1.2, 5.2) over a file or block device of the host.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::Path;

use anyhow::{bail, Context, Result};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, Le32, Le64};

use super::virtio_mmio::VirtioDevice;
use crate::memory::GuestMemoryMmap;

const DEVICE_ID: u32 = 2;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

const SECTOR: u64 = 512;
/// Data segments of a request at most: the queue less header and status.
const SEG_MAX: u32 = 254;
/// Length of the answer to VIRTIO_BLK_T_GET_ID.
const ID_LEN: usize = 20;

/// A request's header: type and first sector.
struct RequestHeader {
    kind: u32,
    sector: u64,
}

impl RequestHeader {
    const LEN: usize = 16;

    fn read(memory: &GuestMemoryMmap, address: GuestAddress) -> Option<Self> {
        let kind: Le32 = memory.read_obj(address).ok()?;
        let sector: Le64 = memory.read_obj(address.checked_add(8)?).ok()?;
        Some(Self {
            kind: kind.into(),
            sector: sector.into(),
        })
    }
}

/// A disk.
pub struct VirtioBlock {
    file: File,
    sectors: u64,
    read_only: bool,
    id: [u8; ID_LEN],
    config: [u8; 24],
}

impl VirtioBlock {
    /// Opens `path`, for reading only when `read_only`.
    pub fn open(path: &Path, read_only: bool) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .with_context(|| format!("cannot open disk {}", path.display()))?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            bail!("disk {} is a directory", path.display());
        }
        // The end of a block device is found by seeking; its metadata says 0.
        let size = file
            .seek(SeekFrom::End(0))
            .with_context(|| format!("cannot find the size of disk {}", path.display()))?;
        if size == 0 {
            bail!("disk {} is empty", path.display());
        }
        if size % SECTOR != 0 {
            bail!("disk {} has {size} bytes, which is no multiple of 512: it is truncated or no disk image", path.display());
        }
        let sectors = size / SECTOR;
        let mut id = [0; ID_LEN];
        let name = path
            .file_name()
            .map(|n| n.as_encoded_bytes())
            .unwrap_or_default();
        for (to, from) in id.iter_mut().zip(name) {
            *to = *from;
        }
        let mut config = [0; 24];
        config[0..8].copy_from_slice(&sectors.to_le_bytes());
        config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        Ok(Self {
            file,
            sectors,
            read_only,
            id,
            config,
        })
    }

    /// Serves one request; returns how many bytes were written to the guest.
    fn serve(&self, memory: &GuestMemoryMmap, mut chain: DescriptorChain<&GuestMemoryMmap>) -> u32 {
        let Some(header) = chain
            .next()
            .filter(|d| !d.is_write_only() && d.len() as usize >= RequestHeader::LEN)
        else {
            return 0;
        };
        let Some(header) = RequestHeader::read(memory, header.addr()) else {
            return 0;
        };
        let mut segments = Vec::with_capacity(8);
        for descriptor in chain {
            segments.push((
                descriptor.addr(),
                descriptor.len(),
                descriptor.is_write_only(),
            ));
        }
        // The last byte that the device may write is the status (VIRTIO 1.2, 5.2.6).
        let Some((address, len, true)) = segments.pop() else {
            return 0;
        };
        if len == 0 {
            return 0;
        }
        let Some(status_address) = address.0.checked_add(u64::from(len) - 1) else {
            return 0;
        };
        if len > 1 {
            segments.push((address, len - 1, true));
        }
        let (status, written) = self.transfer(memory, header, &segments);
        match memory.write_obj(status, GuestAddress(status_address)) {
            Ok(()) => written.saturating_add(1),
            Err(_) => 0,
        }
    }

    fn transfer(
        &self,
        memory: &GuestMemoryMmap,
        header: RequestHeader,
        segments: &[(GuestAddress, u32, bool)],
    ) -> (u8, u32) {
        let mut offset = header.sector.saturating_mul(SECTOR);
        let total: u64 = segments.iter().map(|s| u64::from(s.1)).sum();
        let kind = header.kind;
        if matches!(kind, T_IN | T_OUT) && offset.saturating_add(total) > self.sectors * SECTOR {
            return (S_IOERR, 0);
        }
        match kind {
            T_IN => {
                let mut written = 0u32;
                for &(address, len, writable) in segments {
                    if !writable || self.read_segment(memory, address, len, offset).is_err() {
                        return (S_IOERR, written);
                    }
                    written = written.saturating_add(len);
                    offset += u64::from(len);
                }
                (S_OK, written)
            }
            T_OUT if self.read_only => (S_IOERR, 0),
            T_OUT => {
                for &(address, len, writable) in segments {
                    if writable || self.write_segment(memory, address, len, offset).is_err() {
                        return (S_IOERR, 0);
                    }
                    offset += u64::from(len);
                }
                (S_OK, 0)
            }
            T_FLUSH => match self.file.sync_data() {
                Ok(()) => (S_OK, 0),
                Err(_) => (S_IOERR, 0),
            },
            T_GET_ID => match segments {
                [(address, len, true)]
                    if *len as usize >= ID_LEN
                        && memory.write_slice(&self.id, *address).is_ok() =>
                {
                    (S_OK, ID_LEN as u32)
                }
                _ => (S_IOERR, 0),
            },
            _ => (S_UNSUPP, 0),
        }
    }

    fn read_segment(
        &self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        len: u32,
        offset: u64,
    ) -> std::io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        memory
            .read_exact_volatile_from(address, &mut file, len as usize)
            .map_err(std::io::Error::other)
    }

    fn write_segment(
        &self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        len: u32,
        offset: u64,
    ) -> std::io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        memory
            .write_all_volatile_to(address, &mut file, len as usize)
            .map_err(std::io::Error::other)
    }
}

impl VirtioDevice for VirtioBlock {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | if self.read_only { F_RO } else { 0 }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process(
        &self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<bool, virtio_queue::Error> {
        let mut served = false;
        loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = queue.pop_descriptor_chain(memory) {
                let head = chain.head_index();
                let written = self.serve(memory, chain);
                queue.add_used(memory, head, written)?;
                served = true;
            }
            if !queue.enable_notification(memory)? {
                break;
            }
        }
        Ok(served && queue.needs_notification(memory)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_queue::desc::{split::Descriptor as SplitDescriptor, RawDescriptor};
    use virtio_queue::mock::MockSplitQueue;
    use vmm_sys_util::tempfile::TempFile;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;

    struct Disk {
        block: VirtioBlock,
        memory: GuestMemoryMmap,
        file: TempFile,
    }

    fn disk(read_only: bool) -> Disk {
        let file = TempFile::new().unwrap();
        file.as_file().set_len(16 * SECTOR).unwrap();
        let block = VirtioBlock::open(file.as_path(), read_only).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        Disk {
            block,
            memory,
            file,
        }
    }

    impl Disk {
        /// Puts a request of `kind` with one data segment at 0x41000 into a fresh queue and serves it: (status, used length).
        fn request(&self, kind: u32, sector: u64, len: u32, flags: u16) -> (u8, u32) {
            let mock = MockSplitQueue::new(&self.memory, 16);
            let header = [u64::from(kind), sector];
            self.memory
                .write_obj(header, GuestAddress(0x40000))
                .unwrap();
            self.memory
                .write_obj(0xffu8, GuestAddress(0x60000))
                .unwrap();
            let mut descriptors = vec![SplitDescriptor::new(0x40000, 16, NEXT, 1)];
            if len > 0 {
                descriptors.push(SplitDescriptor::new(0x41000, len, flags | NEXT, 2));
            }
            descriptors.push(SplitDescriptor::new(0x60000, 1, WRITE, 0));
            let raw: Vec<RawDescriptor> =
                descriptors.into_iter().map(RawDescriptor::from).collect();
            mock.build_desc_chain(&raw).unwrap();
            let mut queue: Queue = mock.create_queue().unwrap();
            assert!(self.block.process(&mut queue, &self.memory).unwrap());
            let used = mock.used().ring().ref_at(0).unwrap().load();
            (
                self.memory.read_obj(GuestAddress(0x60000)).unwrap(),
                used.len(),
            )
        }
    }

    #[test]
    fn written_data_reads_back_and_is_in_the_file() {
        let disk = disk(false);
        disk.memory
            .write_slice(&[0xa5; 1024], GuestAddress(0x41000))
            .unwrap();
        assert_eq!(disk.request(T_OUT, 3, 1024, 0), (S_OK, 1));
        disk.memory
            .write_slice(&[0; 1024], GuestAddress(0x41000))
            .unwrap();
        assert_eq!(disk.request(T_IN, 3, 1024, WRITE), (S_OK, 1025));
        let mut back = [0; 1024];
        disk.memory
            .read_slice(&mut back, GuestAddress(0x41000))
            .unwrap();
        assert_eq!(back, [0xa5; 1024]);
        let contents = std::fs::read(disk.file.as_path()).unwrap();
        assert_eq!(contents.iter().filter(|&&b| b == 0xa5).count(), 1024);
        assert_eq!(contents[3 * 512], 0xa5);
        assert_eq!(disk.request(T_FLUSH, 0, 0, 0), (S_OK, 1));
    }

    #[test]
    fn errors_are_reported() {
        let writable = disk(false);
        assert_eq!(
            writable.request(T_IN, 15, 1024, WRITE).0,
            S_IOERR,
            "past the end"
        );
        assert_eq!(writable.request(T_IN, u64::MAX / 2, 512, WRITE).0, S_IOERR);
        assert_eq!(
            writable.request(T_IN, 0, 512, 0).0,
            S_IOERR,
            "a read into a buffer to be read"
        );
        assert_eq!(writable.request(99, 0, 512, WRITE).0, S_UNSUPP);
        let fixed = disk(true);
        assert_eq!(fixed.request(T_OUT, 0, 512, 0).0, S_IOERR);
        assert_ne!(fixed.block.features() & F_RO, 0);
    }

    #[test]
    fn id_is_the_file_name() {
        let disk = disk(false);
        assert_eq!(disk.request(T_GET_ID, 0, 20, WRITE), (S_OK, 21));
        let mut id = [0; 20];
        disk.memory
            .read_slice(&mut id, GuestAddress(0x41000))
            .unwrap();
        let name = disk.file.as_path().file_name().unwrap().as_encoded_bytes();
        assert!(id.starts_with(&name[..name.len().min(20)]));
    }

    #[test]
    fn capacity_is_in_the_configuration() {
        assert_eq!(disk(false).block.config()[..8], 16u64.to_le_bytes());
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        let file = TempFile::new().unwrap();
        let refusal = |path: &Path| format!("{:#}", VirtioBlock::open(path, false).err().unwrap());
        assert!(refusal(file.as_path()).contains("is empty"));
        file.as_file().set_len(1000).unwrap();
        assert!(refusal(file.as_path()).contains("truncated"));
        assert!(refusal(Path::new("/nonexistent")).contains("/nonexistent"));
    }
}
