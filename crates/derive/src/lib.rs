//! The derive macro of `shmem_providers::SharedLayout`. Use it through the feature `derive` of that crate.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Member, Result, parse_macro_input};

/// Implements `SharedLayout` for a structure that is `repr(C)` or `repr(transparent)`, and whose fields
/// all implement it.
///
/// # Examples
///
/// ```
/// # #![forbid(unsafe_code)]
/// use std::sync::atomic::{AtomicU8, AtomicU64};
/// use shmem_providers::SharedLayout;
///
/// #[derive(SharedLayout)]
/// #[repr(C)]
/// struct Frame {
///     sequence: AtomicU64,
///     pixels: [AtomicU8; 640 * 480],
/// }
/// ```
///
/// A plain integer is an error, because another process can change it:
///
/// ```compile_fail,E0277
/// use shmem_providers::SharedLayout;
///
/// #[derive(SharedLayout)]
/// #[repr(C)]
/// struct Frame {
///     sequence: u64,
/// }
/// ```
///
/// So is a structure without a fixed layout:
///
/// ```compile_fail
/// use std::sync::atomic::AtomicU64;
/// use shmem_providers::SharedLayout;
///
/// #[derive(SharedLayout)]
/// struct Frame {
///     sequence: AtomicU64,
/// }
/// ```
#[proc_macro_derive(SharedLayout)]
pub fn shared_layout(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implement(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn implement(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        let problem = "only a structure can have a `SharedLayout`: not every value of a byte is valid \
                       for an enum, and a union does not tell which field is meant";
        return Err(Error::new(input.ident.span(), problem));
    };
    check_representation(input)?;

    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let inherited = where_clause
        .into_iter()
        .flat_map(|clause| &clause.predicates);
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let bounds = types
        .iter()
        .map(|ty| quote_spanned!(ty.span()=> #ty: ::shmem_providers::SharedLayout));
    let fields = field_names(&data.fields);
    let members: Vec<_> = data.fields.members().collect();
    let bindings: Vec<_> = (0..members.len())
        .map(|n| format_ident!("field{n}"))
        .collect();
    let bounds = quote! {
        where
            #(#inherited,)*
            #(#bounds,)*
    };
    Ok(quote! {
        // SAFETY: the macro has checked that the structure is `repr(C)` or `repr(transparent)`, and not
        // packed. The bounds ensure that each of its fields is a `SharedLayout`.
        #[automatically_derived]
        unsafe impl #impl_generics ::shmem_providers::SharedLayout for #name #type_generics
        #bounds
        {
            const FINGERPRINT: u64 = {
                // An attribute macro that is applied later can change the structure. This compiles only if
                // these are still its fields, and none of them is packed.
                #[allow(dead_code, clippy::multiple_bound_locations)]
                fn unchanged #impl_generics (value: &#name #type_generics) #bounds {
                    let #name { #(#members: #bindings),* } = value;
                    #(let _: &#types = #bindings;)*
                }
                ::shmem_providers::layout::fingerprint(
                    #fields,
                    &[#(<#types as ::shmem_providers::SharedLayout>::FINGERPRINT),*],
                )
            };
        }
    })
}

/// Refuses structures whose layout is not fixed, and those whose fields may not be aligned.
fn check_representation(input: &DeriveInput) -> Result<()> {
    let mut is_fixed = false;
    for attribute in &input.attrs {
        if !attribute.path().is_ident("repr") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("packed") {
                return Err(meta.error("atomics must be aligned: remove `packed`"));
            }
            is_fixed |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            // `align(8)`
            if meta.input.peek(syn::token::Paren) {
                let alignment;
                syn::parenthesized!(alignment in meta.input);
                alignment.parse::<syn::LitInt>()?;
            }
            Ok(())
        })?;
    }
    if is_fixed {
        Ok(())
    } else {
        Err(Error::new(
            input.ident.span(),
            "the layout must be the same in every program: add `#[repr(C)]`",
        ))
    }
}

/// Returns the names of the fields, each followed by a comma.
fn field_names(fields: &Fields) -> String {
    fields
        .members()
        .map(|member| match member {
            Member::Named(name) => format!("{name},"),
            Member::Unnamed(index) => format!("{},", index.index),
        })
        .collect()
}
