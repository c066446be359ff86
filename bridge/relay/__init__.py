"""How do messages get from Redis to RabbitMQ?"""
