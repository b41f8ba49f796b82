// Every kind of call of the npm package `ollama` against a server: node ollama_client.mjs URL PACKAGE
import assert from 'node:assert/strict'
import { pathToFileURL } from 'node:url'

const [url, entry] = process.argv.slice(2)
const { Ollama } = await import(pathToFileURL(entry).href)
const ollama = new Ollama({ host: url })
const messages = [{ role: 'user', content: 'Say hello.' }]
const few = { num_predict: 8 }
const all = async (stream) => {
  const parts = []
  for await (const part of stream) parts.push(part)
  return parts
}

const tests = {
  async chat() {
    const whole = await ollama.chat({ model: 'smol', messages, options: few })
    assert.equal(whole.message.role, 'assistant')
    assert.ok(whole.message.content)
    const parts = await all(await ollama.chat({ model: 'smol', messages, options: few, stream: true }))
    assert.equal(parts.map((part) => part.message.content).join(''), whole.message.content)
    assert.deepEqual(parts.map((part) => part.done), [...Array(parts.length - 1).fill(false), true])
    assert.ok(parts.at(-1).eval_count > 0)
  },
  async generate() {
    const whole = await ollama.generate({ model: 'smol', prompt: 'Say hello.', options: few })
    assert.ok(whole.context.length > 8)
    const parts = await all(await ollama.generate({ model: 'smol', prompt: 'Say hello.', options: few, stream: true }))
    assert.equal(parts.map((part) => part.response).join(''), whole.response)
  },
  async format() {
    const format = { type: 'object', properties: { color: { enum: ['red', 'blue'] } }, required: ['color'] }
    const answer = await ollama.chat({ model: 'smol', messages, format })
    assert.ok(['red', 'blue'].includes(JSON.parse(answer.message.content).color))
  },
  async embeddings() {
    const two = await ollama.embed({ model: 'minilm', input: ['one', 'two'] })
    assert.deepEqual(two.embeddings.map((vector) => vector.length), [384, 384])
    assert.equal((await ollama.embeddings({ model: 'minilm', prompt: 'one' })).embedding.length, 384)
  },
  async models() {
    const names = (await ollama.list()).models.map((model) => model.name)
    assert.ok(names.includes('smol:latest'))
    assert.equal((await ollama.show({ model: 'smol' })).details.family, 'llama')
    assert.ok((await ollama.ps()).models.length > 0)
    assert.ok((await ollama.version()).version)
  },
  async copyAndDelete() {
    assert.equal((await ollama.copy({ source: 'smol', destination: 'other' })).status, 'success')
    assert.equal((await ollama.delete({ model: 'other' })).status, 'success')
    await assert.rejects(ollama.show({ model: 'other' }), { name: 'ResponseError', status_code: 404 })
  },
  async create() {
    const parts = await all(await ollama.create({ model: 'made', from: 'smol', system: 'Be brief.', stream: true }))
    assert.equal(parts.at(-1).status, 'success')
    assert.match((await ollama.show({ model: 'made' })).system, /Be brief/)
  },
  async abort() {
    const options = { num_predict: 2000 }
    const stream = await ollama.generate({ model: 'smol', prompt: 'Once', raw: true, options, stream: true })
    await assert.rejects(
      async () => {
        for await (const part of stream) if (part.response) stream.abort()
      },
      { name: 'AbortError' },
    )
  },
  async errors() {
    await assert.rejects(ollama.chat({ model: 'nothing', messages }), { name: 'ResponseError', status_code: 404 })
  },
}

for (const [name, test] of Object.entries(tests)) {
  await test()
  console.log(`passed: ${name}`)
}
