"""Programs that try to get through the engine's limits; the tests run them in processes of their own."""
