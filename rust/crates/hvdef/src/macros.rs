// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The three shapes that definitions have: plain numbers, sets of bits, structures with a fixed layout.

/// Constants of one type; each gets a documentation line of its own name.
macro_rules! numbers {
    ($t:ty; $($(#[$m:meta])* $name:ident = $value:expr,)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            $(#[$m])*
            pub const $name: $t = $value;
        )*
    };
}

/// A set of bits over an integer: unknown bits are kept, so what came from outside can be judged.
macro_rules! bit_set {
    ($(#[$m:meta])* pub struct $name:ident: $t:ty {
        $($(#[$fm:meta])* $flag:ident = $value:expr,)*
    }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $name(pub $t);

        impl $name {
            $(
                #[doc = concat!("`", stringify!($flag), "`.")]
                $(#[$fm])*
                pub const $flag: Self = Self($value);
            )*

            /// No bit set.
            #[inline]
            pub const fn empty() -> Self {
                Self(0)
            }

            /// Every bit that has a name.
            #[inline]
            pub const fn all() -> Self {
                Self(0 $(| $value)*)
            }

            /// The raw value.
            #[inline]
            pub const fn bits(self) -> $t {
                self.0
            }

            /// Whether all bits of `other` are set.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is set.
            #[inline]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The bits of both.
            #[inline]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits that both have.
            #[inline]
            pub const fn intersection(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// The bits of `self` that `other` lacks.
            #[inline]
            pub const fn difference(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// `self` where `condition` holds, else nothing.
            #[inline]
            pub const fn when(self, condition: bool) -> Self {
                if condition {
                    self
                } else {
                    Self(0)
                }
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            #[inline]
            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl core::ops::BitOrAssign for $name {
            #[inline]
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }

        impl core::ops::BitAnd for $name {
            type Output = Self;
            #[inline]
            fn bitand(self, other: Self) -> Self {
                self.intersection(other)
            }
        }
    };
}

/// A structure without padding and with its size stated, that implements [`crate::Wire`].
macro_rules! wire_struct {
    ($(#[$m:meta])* pub struct $name:ident: $size:literal {
        $($(#[$fm:meta])* pub $field:ident: $t:ty,)*
    }) => {
        wire_struct! { @define [repr(C)] $(#[$m])* pub struct $name: $size { $($(#[$fm])* pub $field: $t,)* } }
    };
    (packed $(#[$m:meta])* pub struct $name:ident: $size:literal {
        $($(#[$fm:meta])* pub $field:ident: $t:ty,)*
    }) => {
        wire_struct! {
            @define [repr(C, packed)] $(#[$m])* pub struct $name: $size { $($(#[$fm])* pub $field: $t,)* }
        }
    };
    (@define [$repr:meta] $(#[$m:meta])* pub struct $name:ident: $size:literal {
        $($(#[$fm:meta])* pub $field:ident: $t:ty,)*
    }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[$repr]
        pub struct $name {
            $($(#[$fm])* pub $field: $t,)*
        }

        impl crate::Wire for $name {
            const SIZE: usize = 0 $(+ <$t as crate::Wire>::SIZE)*;
            const ZERO: Self = Self { $($field: <$t as crate::Wire>::ZERO,)* };

            #[inline]
            fn read(bytes: &[u8]) -> Option<Self> {
                let rest = bytes;
                $(
                    let $field = <$t as crate::Wire>::read(rest)?;
                    let rest = rest.get(<$t as crate::Wire>::SIZE..)?;
                )*
                let _ = rest;
                Some(Self { $($field,)* })
            }

            #[inline]
            fn write(&self, bytes: &mut [u8]) -> Option<()> {
                let rest = bytes;
                $(
                    let field = self.$field;
                    crate::Wire::write(&field, rest)?;
                    let rest = rest.get_mut(<$t as crate::Wire>::SIZE..)?;
                )*
                let _ = rest;
                Some(())
            }
        }

        impl Default for $name {
            #[inline]
            fn default() -> Self {
                <Self as crate::Wire>::ZERO
            }
        }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            assert!(<$name as crate::Wire>::SIZE == $size);
        };
    };
}
