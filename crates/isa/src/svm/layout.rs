//! A structure in memory as one table: offset, field, type and manual name in a row.
//!
//! The rows make the `repr(C)` structure, an assertion on every offset that the compiler evaluates, and the list
//! of fields that dumps, comparisons and traces are written from. zerocopy refuses invisible padding, so a row
//! that is missing or too short does not compile.

/// One named field of a structure in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The manual's name.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Width in bytes.
    pub size: usize,
}

impl Field {
    /// The first eight bytes at most of this field in the bytes of its structure, as a little-endian number.
    ///
    /// Nothing when the bytes end before the field does.
    #[must_use]
    pub fn value(&self, structure: &[u8]) -> Option<u64> {
        let end = self.offset.checked_add(self.size)?;
        let bytes = structure.get(self.offset..end)?;
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(u64::from_le_bytes(value))
    }
}

/// Defines a structure from rows `offset field: type = "MANUAL NAME",`; a row without a name is reserved.
macro_rules! layout {
    (
        $(#[$outer:meta])*
        pub struct $name:ident, size $size:literal {
            $( $(#[$doc:meta])* $offset:literal $field:ident : $type:ty $(= $manual:literal)? , )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout,
            zerocopy::Immutable)]
        #[repr(C)]
        pub struct $name {
            $( $(#[$doc])* pub $field: $type, )*
        }

        const _: () = {
            $( assert!(core::mem::offset_of!($name, $field) == $offset, concat!("offset of ", stringify!($field))); )*
            assert!(size_of::<$name>() == $size, concat!("size of ", stringify!($name)));
        };

        impl $name {
            /// The named fields in the manual's order.
            pub const FIELDS: &'static [$crate::svm::layout::Field] = &[
                $( $( $crate::svm::layout::Field { name: $manual, offset: $offset, size: size_of::<$type>() }, )? )*
            ];

            /// All bytes zero.
            #[must_use]
            pub fn zeroed() -> Self {
                <Self as zerocopy::FromZeros>::new_zeroed()
            }

            /// The named fields that differ from `before`, in the manual's order.
            pub fn changed_since<'a>(
                &'a self,
                before: &'a Self,
            ) -> impl Iterator<Item = &'static $crate::svm::layout::Field> + 'a {
                Self::FIELDS.iter().filter(move |field| {
                    let range = field.offset..field.offset + field.size;
                    zerocopy::IntoBytes::as_bytes(self).get(range.clone())
                        != zerocopy::IntoBytes::as_bytes(before).get(range)
                })
            }
        }

        impl core::fmt::Debug for $name {
            /// Only the fields that are not zero: most of the structure is reserved.
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let bytes = zerocopy::IntoBytes::as_bytes(self);
                let mut out = f.debug_struct(stringify!($name));
                for field in Self::FIELDS {
                    let value = bytes.get(field.offset..field.offset + field.size).unwrap_or_default();
                    if field.size <= 8 {
                        let number = field.value(bytes).unwrap_or_default();
                        if number != 0 {
                            out.field(field.name, &format_args!("{number:#x}"));
                        }
                    } else if value.iter().any(|byte| *byte != 0) {
                        out.field(field.name, &format_args!("{value:02x?}"));
                    }
                }
                out.finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use layout;
