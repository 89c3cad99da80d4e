import { Module, Controller, Get, Injectable } from '@nestjs/common';
@Injectable() export class AppService { private n = 0; hello() { return `Hello from Nest ${++this.n}`; } }
@Controller() export class AppController { constructor(private readonly s: AppService) {} @Get() hello(): string { return this.s.hello(); } }
@Module({ imports: [], controllers: [AppController], providers: [AppService] }) export class AppModule {}
