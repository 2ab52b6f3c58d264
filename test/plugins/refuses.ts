/** Its import throws. */
export {};

throw new Error('not on this host');
