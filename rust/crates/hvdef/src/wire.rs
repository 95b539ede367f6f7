// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Structures as bytes (little endian), without `unsafe`.

/// A value with a fixed layout in memory that is shared with a guest or a VMM.
pub trait Wire: Copy + Sized {
    /// Bytes taken.
    const SIZE: usize;
    /// All bytes zero.
    const ZERO: Self;

    /// Takes the value from the start of `bytes`; `None` if they are too few.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// Puts the value at the start of `bytes`; `None` (and an unspecified part written) if they are too few.
    fn write(&self, bytes: &mut [u8]) -> Option<()>;
}

macro_rules! wire_int {
    ($($t:ty)*) => {
        $(
            impl Wire for $t {
                const SIZE: usize = core::mem::size_of::<$t>();
                const ZERO: Self = 0;

                #[inline]
                fn read(bytes: &[u8]) -> Option<Self> {
                    Some(<$t>::from_le_bytes(*bytes.first_chunk()?))
                }

                #[inline]
                fn write(&self, bytes: &mut [u8]) -> Option<()> {
                    *bytes.first_chunk_mut()? = self.to_le_bytes();
                    Some(())
                }
            }
        )*
    };
}

wire_int! { u8 u16 u32 u64 i64 }

impl<T: Wire, const N: usize> Wire for [T; N] {
    const SIZE: usize = N * T::SIZE;
    const ZERO: Self = [T::ZERO; N];

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut out = Self::ZERO;
        for (slot, chunk) in out
            .iter_mut()
            .zip(bytes.get(..Self::SIZE)?.chunks_exact(T::SIZE.max(1)))
        {
            *slot = T::read(chunk)?;
        }
        Some(out)
    }

    #[inline]
    fn write(&self, bytes: &mut [u8]) -> Option<()> {
        for (slot, chunk) in self.iter().zip(
            bytes
                .get_mut(..Self::SIZE)?
                .chunks_exact_mut(T::SIZE.max(1)),
        ) {
            slot.write(chunk)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::Wire;

    #[test]
    fn integers_are_little_endian() {
        let mut b = [0u8; 8];
        0x0102_0304_0506_0708u64.write(&mut b).unwrap();
        assert_eq!(b, [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(u32::read(&b), Some(0x0506_0708));
        assert_eq!(u64::read(&b[1..]), None);
    }

    #[test]
    fn arrays_need_all_their_bytes() {
        assert_eq!(<[u16; 3]>::read(&[1, 0, 2, 0, 3, 0]), Some([1, 2, 3]));
        assert_eq!(<[u16; 3]>::read(&[1, 0, 2, 0, 3]), None);
        assert_eq!([1u16; 3].write(&mut [0; 5]), None);
    }
}
