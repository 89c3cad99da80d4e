// A chat on an API Gateway WebSocket API: what one says all hear. The function keeps who is there in its memory.
import { ApiGatewayManagementApiClient, PostToConnectionCommand } from '@aws-sdk/client-apigatewaymanagementapi';

const connections = new Set();
const api = new ApiGatewayManagementApiClient({});

export const handler = async (event) => {
  const { routeKey, connectionId } = event.requestContext;
  switch (routeKey) {
    case '$connect':
      if (event.queryStringParameters?.secret !== 'yes') return { statusCode: 403 };
      connections.add(connectionId);
      break;
    case '$disconnect':
      connections.delete(connectionId);
      break;
    case 'say': {
      const { text } = JSON.parse(event.body);
      await Promise.all([...connections].map((id) => api.send(new PostToConnectionCommand({ ConnectionId: id, Data: text }))));
      break;
    }
    default:
      throw new Error(`there is no route for ${event.body}`);
  }
  return { statusCode: 200 };
};
