/** The AssemblyScript number types that `layout.ts` uses, for the TypeScript compiler. */
declare type i32 = number;
declare type u32 = number;
