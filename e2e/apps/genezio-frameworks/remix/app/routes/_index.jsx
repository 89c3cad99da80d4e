import { useLoaderData } from "@remix-run/react";
let n = 0;
export function loader() { return { n: ++n } }
export default function Index() { const d = useLoaderData(); return <h1>Hello from Remix {d.n}</h1> }
