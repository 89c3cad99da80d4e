// AWS's own clients, pointed at a node by AWS_ENDPOINT_URL: does what its first argument says and prints JSON.
import { InvokeCommand, InvokeWithResponseStreamCommand, LambdaClient } from '@aws-sdk/client-lambda';
import {
  ApiGatewayManagementApiClient, DeleteConnectionCommand, GetConnectionCommand, PostToConnectionCommand,
} from '@aws-sdk/client-apigatewaymanagementapi';

const [action, name, ...more] = process.argv.slice(2);
const lambda = new LambdaClient({ maxAttempts: 1 });
const api = new ApiGatewayManagementApiClient({ maxAttempts: 1 });
const text = (bytes) => (bytes == null ? undefined : Buffer.from(bytes).toString());

async function invoke(options) {
  const answer = await lambda.send(new InvokeCommand({ FunctionName: name, ...options }));
  return {
    status: answer.StatusCode, error: answer.FunctionError, payload: text(answer.Payload), version: answer.ExecutedVersion,
    log: answer.LogResult && Buffer.from(answer.LogResult, 'base64').toString(),
  };
}

const actions = {
  invoke: () => invoke({ Payload: more[0], LogType: 'Tail' }),
  event: () => invoke({ Payload: more[0], InvocationType: 'Event' }),
  dryrun: () => invoke({ InvocationType: 'DryRun' }),
  stream: async () => {
    const answer = await lambda.send(new InvokeWithResponseStreamCommand({ FunctionName: name, Payload: more[0] }));
    const pieces = [];
    let complete;
    for await (const event of answer.EventStream) {
      if (event.PayloadChunk) pieces.push(text(event.PayloadChunk.Payload));
      if (event.InvokeComplete) complete = event.InvokeComplete;
    }
    return { status: answer.StatusCode, pieces, error: complete?.ErrorCode, details: complete?.ErrorDetails };
  },
  post: () => api.send(new PostToConnectionCommand({ ConnectionId: name, Data: more[0] })).then(() => ({})),
  get: () => api.send(new GetConnectionCommand({ ConnectionId: name })).then(({ Identity }) => ({ ip: Identity.SourceIp })),
  delete: () => api.send(new DeleteConnectionCommand({ ConnectionId: name })).then(() => ({})),
};

try {
  console.log(JSON.stringify(await actions[action]()));
} catch (error) {
  console.log(JSON.stringify({ thrown: error.name, message: error.message, status: error.$metadata?.httpStatusCode }));
}
