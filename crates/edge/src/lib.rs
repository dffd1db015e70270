//! Live connections: Engine.IO 4, Socket.IO 5 and plain WebSocket. Knows nothing of messaging.
