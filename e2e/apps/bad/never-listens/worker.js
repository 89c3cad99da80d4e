console.log('worker: waiting for jobs');
setInterval(() => {}, 1000);
