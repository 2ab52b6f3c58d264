/** Its import never ends, and leaves the thread free. */
export {};

setInterval(() => {}, 1000);
await new Promise(() => {});
