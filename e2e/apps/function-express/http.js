module.exports.handler = require('serverless-http')(require('./app'), { binary: ['image/*'] });
