import { defineNitroConfig } from 'nitropack/config'
export default defineNitroConfig({ srcDir: 'server', compatibilityDate: '2024-11-01' })
