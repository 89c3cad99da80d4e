export const dynamic = 'force-dynamic';

let asked = 0;

export default function Page() {
  return <main>Hello from Next {++asked}</main>;
}
