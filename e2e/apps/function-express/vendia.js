const { configure } = require('@vendia/serverless-express');
exports.handler = configure({ app: require('./app') });
