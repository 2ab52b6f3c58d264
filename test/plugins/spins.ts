/** Its import loops for ever. */
export {};

for (;;);
